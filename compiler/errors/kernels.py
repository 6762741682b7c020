"""Masks and kernels: functions in the wrong place, and what is made of them."""

from __future__ import annotations

from attnc.errors.base import AttncError


class NotAModError(AttncError, TypeError, RuntimeError):  # or_masks raises the latter
    template = "{role} is {got}, not a function. {instead}"


class ModSignatureError(AttncError, TypeError, AssertionError):  # the latter as PyTorch
    template = (
        "{name} takes {n_parameters} parameters without default. A mask_mod takes 4: "
        "(b, h, q_idx, kv_idx); a score_mod takes 5: (score, b, h, q_idx, kv_idx). "
        "Give further parameters a default, or bind them with functools.partial."
    )


class WrongModKindError(AttncError, TypeError, AssertionError):  # the latter as PyTorch
    template = (
        "{name} is a {kind} ({n_parameters} parameters), but {role} must be a {wanted}. "
        "A mask_mod takes (b, h, q_idx, kv_idx) and tells what is visible; a score_mod takes "
        "(score, b, h, q_idx, kv_idx) and gives the new score."
    )


class KernelPartsError(AttncError, ValueError):
    template = (
        "{name}, given as {role}, is a kernel with {parts}, which only {name}(q, k, v) applies. "
        "Pass {name}.fn for the function alone, and the rest as arguments of the call."
    )


class KernelOperatorError(AttncError, TypeError):
    template = (
        "`{operator}` is not defined for {operands}. Masks combine with `f & g`, `f | g` and "
        "`~f`; scores with `s.then(t)` and `s.where(mask)`."
    )


class KernelCallError(AttncError, TypeError):
    template = (
        "{name}({given}): call it with three tensors of 4 dimensions, {name}(q, k, v), to run "
        "attention with it as the {role}, or with ({own}) as a function."
    )


class KernelFunctionError(AttncError, TypeError):
    template = (
        "kernel(None)({given}): kernel without a function is a decorator, which takes one function. "
        "Write kernel(f, ...), or @kernel(...) above the function; without mask and score call "
        "attention(q, k, v)."
    )


class AnalysisArgumentError(AttncError, ValueError):
    template = "analyze: {name} is {value!r}; {problem}."


class LibraryArgumentError(AttncError, ValueError):
    template = "attnc.library.{function}({argument}={value}): {problem}."
