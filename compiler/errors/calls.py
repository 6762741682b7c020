"""Calls: q, k, v, and what goes along with them."""

from __future__ import annotations

from attnc.errors.base import AttncError


class InputTypeError(AttncError, TypeError):
    template = (
        "q is {q}, k is {k}, v is {v}. All three must be tensors: torch.from_numpy(x) makes one of "
        "a NumPy array, torch.tensor(x) of a list."
    )


class InputDTypeError(AttncError, TypeError, ValueError):  # PyTorch raises the latter
    template = (
        "q is {q}, k is {k}, v is {v}. All three must have the same dtype, one of float32, "
        "bfloat16, float16 and float64; convert with .to(torch.float32) or .to(q.dtype)."
    )


class ShapeError(AttncError, ValueError):
    template = "{problem}: q is {q}, k is {k}, v is {v}. {advice}"


class DimensionsError(ShapeError, NotImplementedError):
    template = (
        "q, k and v need 4 dimensions: q is {q}, k is {k}, v is {v}. "
        "They are (batch, heads, length, head_dim)."
    )


class InputLayoutError(AttncError, TypeError, NotImplementedError):
    template = (
        "{name} is {kind}, whose elements do not lie at even steps in memory, as kernels read them. "
        "{instead}"
    )


class FreedStorageError(AttncError, RuntimeError):
    template = (
        "{name} has the shape {shape}, but its memory was given back, all or its end (resize_ of "
        "its storage, as sharded parameters do between their uses). Gather it again before the call."
    )


class ScaleError(AttncError, ValueError, TypeError):
    template = "scale is {value!r}. {instead}"


class FlagError(AttncError, TypeError, ValueError):
    template = "{name} is {value!r}; give True or False."


class DeviceError(AttncError, ValueError):
    template = "{what} is on {device}, but q is on {expected}. Move it with .to(q.device)."


class FunctionTransformError(AttncError, NotImplementedError):
    template = (
        "{what} belongs to torch.vmap or to forward-mode differentiation (jvp), which cannot look "
        "into a kernel. Call attention outside of it; batch and heads are dimensions of q, k and v. "
        "torch.func.grad and vjp work."
    )


class BackendError(AttncError, ValueError):
    template = (
        "backend {backend!r}: {problem} It is chosen by backend= or the environment variable "
        "ATTNC_BACKEND."
    )


class KernelOptionError(AttncError, ValueError):
    template = (
        "unknown kernel option {name!r}. Leave it out, or use one that PyTorch has, to no effect "
        "here: {known}; each also with fwd_ or bwd_ in front."
    )


class AuxRequestError(AttncError, ValueError):
    template = (
        "return_lse and return_aux both ask for the log-sum-exp. "
        "Use return_aux=AuxRequest(lse=True) alone."
    )


class AuxRequestTypeError(AttncError, TypeError, AttributeError):  # the latter as PyTorch
    template = (
        "return_aux is {value!r}. Give AuxRequest(lse=True), AuxRequest(max_scores=True) or None."
    )


class KernelOptionsTypeError(AttncError, TypeError):
    template = (
        'kernel_options is {value!r}. Give a dict of options by name, such as {{"BLOCK_M": 64}}, '
        "or None."
    )


class KernelBackendError(AttncError, ValueError):
    template = "kernel option BACKEND is {backend!r}. Use one of {known}, or leave it out."


class KernelOptionConflictError(AttncError, RuntimeError):
    template = (
        "kernel options BACKEND and FORCE_USE_FLEX_ATTENTION exclude each other. "
        "Leave out FORCE_USE_FLEX_ATTENTION, the older one."
    )


class KernelOptionReservedError(KernelOptionError, AssertionError):
    template = "kernel option {name!r} follows from what is asked for. Use return_aux instead."


class SymbolicNumberError(AttncError, ValueError):
    template = (
        "a size or number that a compiled graph passes to a mask or score is {value}, which has "
        "more than 32 bits. Compute with it in a tensor: torch.tensor(number)."
    )


class LayoutArgumentError(AttncError, ValueError):
    template = "attnc.layout: {argument} is {value}; {problem}."


class LayoutLengthError(AttncError, ValueError):
    template = (
        "layout {name!r} is of {n_tokens} tokens, but q has {n_queries} and k {n_keys}. It orders "
        "queries and keys alike: make it for the tokens of both, or leave it out."
    )


class LayoutOfBlockMaskError(AttncError, TypeError):
    template = (
        "layout={name!r} with a block mask: its tiles are of tokens in their own order. Pass the "
        "mask_mod as mask."
    )
