"""What ``check`` can be asked for."""

from __future__ import annotations

from typing import Any

import torch

from attnc import checks, testing
from attnc.errors import CheckArgumentError
from attnc.testing.recipes import InputsRecipe

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_BACKENDS = ("cpu", "triton", "reference")


def require_arguments(
    *, dtypes: Any, backends: Any, device: Any, limits: Any, examples: Any, seed: Any, at: Any
) -> None:
    """Raises CheckArgumentError if ``check`` cannot be run with one of these."""
    problems = {
        "dtypes": (dtypes, _names_problem(dtypes, _DTYPES, 1)),
        "backends": (
            backends,
            None if backends is None else _names_problem(backends, _BACKENDS, 0),
        ),
        "device": (device, _device_problem(device)),
        "limits": (limits, _limits_problem(limits)),
        "examples": (examples, _unless(checks.size(examples), "give a number of at least 0")),
        "seed": (seed, _seed_problem(seed)),
        "at": (
            at,
            None if at is None or isinstance(at, InputsRecipe) else "give an InputsRecipe or None",
        ),
    }
    for name, (value, problem) in problems.items():
        if problem is not None:
            raise CheckArgumentError(argument=name, value=value, problem=problem)


def _unless(found: int | None, problem: str) -> str | None:
    return problem if found is None else None


def _names_problem(names: Any, known: tuple[str, ...], least: int) -> str | None:
    is_right = isinstance(names, (list, tuple)) and len(names) >= least
    if is_right and all(checks.one_of(name, known) for name in names):
        return None
    return f"give a tuple of some of {', '.join(known)}, as in ({known[0]!r},)"


def _device_problem(device: Any) -> str | None:
    if device is None:
        return None
    found = checks.device(device)
    if found is None:
        return "there is no such kind of device; give 'cpu', 'cuda' or None"
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError):
        return "this machine has no such device; give 'cpu' or None"
    return "a meta tensor has no elements to compare" if found.type == "meta" else None


def _seed_problem(seed: Any) -> str | None:
    number = 0 if seed is None else checks.whole_number(seed)
    is_right = number is not None and abs(number) < 2**63
    return None if is_right else "give an int of at most 64 bits, or None"


def _limits_problem(limits: Any) -> str | None:
    if limits is None:
        return None
    if not isinstance(limits, testing.Limits):
        return "give attnc.testing.Limits(n_batch, n_heads, length) or None"
    sizes = (limits.n_batch, limits.n_heads, limits.length)
    if any(
        checks.size(value, least) is None for value, least in zip(sizes, (1, 1, 0), strict=True)
    ):
        return "n_batch and n_heads are at least 1, length at least 0"
    return None
