"""mask_mods and score_mods as plain functions: their kind, their names, their composition."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal

import torch

from attnc.errors import KernelPartsError, ModSignatureError, NotAModError, WrongModKindError
from attnc.errors.base import described, visible

Mod = Callable[..., Any]
Kind = Literal["mask_mod", "score_mod"]


def mod_kind(mod: Mod) -> Kind:
    """ "mask_mod" for 4 parameters without default, "score_mod" for 5.

    Raises:
        ModSignatureError: Any other number.
    """
    kind = getattr(mod, "kind", None)
    if kind in ("mask_mod", "score_mod"):
        return kind  # type: ignore[no-any-return]
    n_parameters = _n_required(mod)
    if n_parameters == 4:
        return "mask_mod"
    if n_parameters == 5:
        return "score_mod"
    raise ModSignatureError(name=_placed(mod), n_parameters=n_parameters)


def require_kind(mod: Mod, wanted: Kind, role: str) -> None:
    """Raises unless ``mod`` is a function of the kind that ``role`` needs.

    Raises:
        NotAModError: It cannot be called.
        WrongModKindError: It is of the other kind.
    """
    if not callable(mod):
        raise NotAModError(role=role, got=_described(mod), instead=_instead(mod, wanted))
    if _takes_any_number(mod):
        return
    kind = mod_kind(mod)
    if kind != wanted:
        raise WrongModKindError(
            name=_placed(mod),
            kind=kind,
            n_parameters=5 if kind == "score_mod" else 4,
            role=role,
            wanted=f"{wanted} ({4 if wanted == 'mask_mod' else 5} parameters)",
        )


def require_alone(mod: Any, role: str) -> None:
    """Raises KernelPartsError if ``mod`` is a Kernel with parts that calling it leaves out."""
    parts = getattr(mod, "other_parts", ())
    if parts:
        raise KernelPartsError(name=mod_name(mod), role=role, parts=" and ".join(parts))


def is_plain_function(mod: Any, n_parameters: int) -> bool:
    """Whether ``mod`` is a function of so many parameters, without attributes that say otherwise.

    True spares a call of a kernel what ``require_kind`` and ``require_alone`` take.
    """
    if type(mod) is not FunctionType or mod.__dict__:
        return False
    code, defaults = mod.__code__, mod.__defaults__
    if code.co_kwonlyargcount:
        return False
    return n_parameters == code.co_argcount - (len(defaults) if defaults else 0)


def _described(value: Any) -> str:
    if value is None or isinstance(value, (bool, str, int, float)):
        return repr(described(value))
    shape = "" if getattr(value, "is_nested", False) else getattr(value, "shape", "")
    return f"a {type(value).__name__}{f' of shape {tuple(shape)}' if shape != '' else ''}"


def _instead(value: Any, wanted: Kind) -> str:
    is_mask = wanted == "mask_mod"
    if hasattr(value, "mask_mod") and not is_mask:
        return "Pass a BlockMask as mask= of attention, or block_mask= of flex_attention."
    if getattr(value, "ndim", 0) and is_mask:
        return "Index it in a function: lambda b, h, q_idx, kv_idx: tensor[q_idx, kv_idx]."
    if getattr(value, "ndim", 0):
        return "Add it in a function: lambda score, b, h, q_idx, kv_idx: score + tensor[q_idx, kv_idx]."
    call = "(b, h, q_idx, kv_idx) -> bool" if is_mask else "(score, b, h, q_idx, kv_idx) -> score"
    return f"Pass a {wanted}, {call}."


def mod_name(mod: Mod) -> str:
    """The function's own name, or its repr, as it can be shown."""
    name = getattr(mod, "__name__", None) or getattr(getattr(mod, "func", None), "__name__", None)
    return visible(str(name) if name else repr(described(mod)))


def _placed(mod: Mod) -> str:
    """The name; of a lambda, which has none, also the line."""
    name, code = mod_name(mod), getattr(mod, "__code__", None)
    if name != "<lambda>" or code is None:
        return name
    return f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _n_required(mod: Mod) -> int:
    if type(mod) is FunctionType and not mod.__code__.co_kwonlyargcount:
        # This is on the way of every call with a plain function; inspect takes ten times as long.
        return mod.__code__.co_argcount - len(mod.__defaults__ or ())
    try:
        if not callable(mod):
            raise TypeError  # inspect would print it, and a tensor without memory cannot be
        parameters = inspect.signature(mod).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        raise ModSignatureError(name=mod_name(mod), n_parameters="an unknown number of") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _takes_any_number(mod: Mod) -> bool:
    """Whether ``mod`` is a plain function with ``*args``, whose role then says what it is."""
    return type(mod) is FunctionType and bool(mod.__code__.co_flags & inspect.CO_VARARGS)


def noop_mask(batch: Any, head: Any, token_q: Any, token_kv: Any) -> Any:
    """Every key is visible to every query: a mask_mod that is True at any (``batch``, ``head``,
    ``token_q``, ``token_kv``)."""
    return batch.new_ones((), dtype=torch.bool)


def and_masks(*mask_mods: Mod) -> Mod:
    """A mask_mod that holds where all of ``mask_mods`` hold (everywhere, for none)."""
    _require_masks(mask_mods, "and_masks")
    if not mask_mods:
        return noop_mask

    def and_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        result = mask_mods[0](b, h, q_idx, kv_idx)
        for mask_mod in mask_mods[1:]:
            result = result & mask_mod(b, h, q_idx, kv_idx)
        return result

    return and_mask


def or_masks(*mask_mods: Mod) -> Mod:
    """A mask_mod that holds where any of ``mask_mods`` holds (nowhere, for none)."""
    _require_masks(mask_mods, "or_masks")

    def or_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        if not mask_mods:
            return b.new_zeros((), dtype=torch.bool)
        result = mask_mods[0](b, h, q_idx, kv_idx)
        for mask_mod in mask_mods[1:]:
            result = result | mask_mod(b, h, q_idx, kv_idx)
        return result

    return or_mask


def _require_masks(mods: tuple[Mod, ...], role: str) -> None:
    for mod in mods:
        require_kind(mod, "mask_mod", f"an argument of {role}")
