"""Values of command line options."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from attnc.cli.target import library_entry, raised
from attnc.errors import AttncError, OptionValueError, TargetCodeError
from attnc.trace.location import call_mod

_T = TypeVar("_T")

_LARGEST_SIZE = (1 << 31) - 1
_USUAL_SHAPE = "1,1,1024,1024,64"
_USUAL_LENGTH = 1024
_USUAL_HEAD_DIM = 64


def parsed_shape(text: str) -> tuple[int, int, int, int, int]:
    """B, H, n_queries, n_keys and head_dim from ``1,1,1024,1024,64``.

    Raises:
        OptionValueError: These are not five positive integers, or not of 32 bits as in kernels.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 5 or min(numbers) < 1:
        problem = "write five positive integers B,H,Lq,Lk,D, as in 1,8,1024,1024,64."
        raise OptionValueError(option="--shape", value=text, problem=problem)
    if max(numbers) > _LARGEST_SIZE:
        problem = f"kernels count in 32 bits; use numbers up to {_LARGEST_SIZE}."
        raise OptionValueError(option="--shape", value=text, problem=problem)
    b, h, n_queries, n_keys, head_dim = numbers
    return b, h, n_queries, n_keys, head_dim


def shape_for(target: str | None, given: str | None) -> str:
    """``--shape`` as typed; without it that of the library's example, else the usual one."""
    if given is not None:
        return given
    entry = library_entry(target)
    if entry is None:
        return _USUAL_SHAPE
    return ",".join(map(str, (*entry.shape, _USUAL_HEAD_DIM)))


def lengths_for(target: str | None, given: Mapping[str, int | None]) -> dict[str, int]:
    """The sizes that were typed of ``B, H, Q_LEN, KV_LEN``; others are those of the library's
    example, lengths only if neither was typed, or the usual ones."""
    typed = {name: size for name, size in given.items() if size is not None}
    entry = library_entry(target)
    if entry is None:
        return {"Q_LEN": _USUAL_LENGTH, **typed}
    n_batch, n_heads, n_queries, n_keys = entry.shape
    sizes = {"B": n_batch, "H": n_heads}
    if not {"Q_LEN", "KV_LEN"} & typed.keys():
        sizes |= {"Q_LEN": n_queries, "KV_LEN": n_keys}
    return {"Q_LEN": _USUAL_LENGTH, **sizes, **typed}


def require_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raises OptionValueError, with the nearest choice, unless ``value`` is one of them."""
    known = list(choices)
    if value in known:
        return
    close = difflib.get_close_matches(value, known, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    problem = f"use one of {', '.join(known)}.{meant}"
    raise OptionValueError(option=option, value=value, problem=problem)


def of_user_code(name: str, call: Callable[[], _T]) -> _T:
    """What ``call`` returns, where it traces or runs the user's function.

    Raises:
        TargetCodeError: The function itself raised something that is no error of attnc.
    """
    try:
        return call()
    except AttncError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.name == call_mod.__name__ for frame in frames):
            raise
        raise TargetCodeError(place=name, error=f"{raised(error)}.") from error
