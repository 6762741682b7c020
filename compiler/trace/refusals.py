"""Errors about a function that cannot be a mod, in words of its author."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from attnc.errors import (
    ConcreteValueError,
    ModCallError,
    ModReturnError,
    UnsupportedOperationError,
)
from attnc.trace.location import raised_at
from attnc.trace.symbols import Row, Symbol


def name_of(fn: Any) -> str:
    """What messages call a function."""
    if torch.compiler.is_dynamo_compiling():  # it does not know the longer name
        return getattr(fn, "__name__", "the mod")
    return getattr(fn, "__qualname__", None) or f"a {type(fn).__name__}"


def signature_error(fn: Any, kind: str, args: tuple[Any, ...], error: TypeError) -> TypeError:
    """An error about the parameters of ``fn``, or ``error`` if they fit."""
    first = "score, " if kind == "score_mod" else ""
    call = f"({first}b, h, q_idx, kv_idx)"
    if not callable(fn):
        reason = "it is not a function"
    else:
        try:
            inspect.signature(fn).bind(*args)
        except TypeError as mismatch:
            reason = str(mismatch)
        except ValueError:
            return error  # a builtin that does not tell its parameters
        else:
            return error
    return ModCallError(name=name_of(fn), kind=kind, call=call, reason=reason)


def foreign_operand(error: TypeError) -> UnsupportedOperationError:
    """Python's error about a value of the user's that meets a symbol, in words of the user's."""
    location = raised_at(error)
    text = (
        str(error).replace("'Symbol'", "an index or a score").replace("'Row'", "a row of a tensor")
    )
    return UnsupportedOperationError(
        location=location,
        source=location.source,
        operation=f"what Python cannot do ({text})",
        instead="Use numbers, bools, tensors and what is computed from them.",
    )


def numpy_function(error: TypeError) -> ConcreteValueError:
    """An error about a function of NumPy that got a symbol."""
    location = raised_at(error)
    return ConcreteValueError(
        location=location,
        source=location.source,
        expr="an index or a score",
        wanted="a NumPy array",
        instead="Use the function of torch in place of NumPy's, torch.exp for np.exp.",
    )


def bad_return(fn: Any, kind: str, result: Any) -> ModReturnError:
    """An error about what ``fn`` returned."""
    if isinstance(result, Symbol):
        text = result.context.shown(result.expr)
        got = f"the {result.kind.value} value `{text}`"
        instead = "Compare it, as in `... != 0`; a score_mod is passed as such."
    else:
        got, instead = _kind_of(result), _hint(result)
    wanted = "a bool" if kind == "mask_mod" else "a number"
    return ModReturnError(name=name_of(fn), kind=kind, got=got, wanted=wanted, instead=instead)


def _kind_of(result: Any) -> str:
    match result:
        case None:
            return "None"
        case Row():
            return f"a tensor of shape {result.sizes}"
        case bool() | int() | float():
            return f"the {type(result).__name__} {result}"
        case _:
            return f"a {type(result).__name__}"


def _hint(result: Any) -> str:
    match result:
        case None:
            return "Add the missing `return`."
        case Row():
            return "Index it with b, h, q_idx or kv_idx, or reduce it with .sum(), .max() or torch.dot."
        case bool() | int() | float():
            return "Compare it, as in `... != 0`."
        case _:
            return "Return one value."
