"""What ``check`` can be asked for."""

from __future__ import annotations

from typing import Any

import torch

from attnc import checks, testing
from attnc.block_mask import BlockMask
from attnc.errors import CheckArgumentError
from attnc.testing.recipes import InputsRecipe, MaskRecipe, ScoreRecipe

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_BACKENDS = ("cpu", "triton", "reference")


def require_arguments(
    *,
    mask: Any,
    score: Any,
    scale: Any,
    laws: Any,
    properties: Any,
    dtypes: Any,
    backends: Any,
    gradients: Any,
    device: Any,
    limits: Any,
    examples: Any,
    seed: Any,
    at: Any,
) -> None:
    """Raises CheckArgumentError if ``check`` cannot be run with one of these."""
    problems = {
        "mask": (mask, _mod_problem(mask, MaskRecipe)),
        "score": (score, _mod_problem(score, ScoreRecipe)),
        "scale": (
            scale,
            None
            if scale is None
            else _unless(checks.finite_number(scale), "give a finite number or None"),
        ),
        "laws": (laws, None if laws is None else _laws_problem(laws, may_be_own=False)),
        "properties": (properties, _laws_problem(properties, may_be_own=True)),
        "gradients": (gradients, _unless(checks.flag(gradients), "give True or False")),
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


def _unless(found: float | None, problem: str) -> str | None:
    return problem if found is None else None


def _mod_problem(mod: Any, recipe: type) -> str | None:
    # A BlockMask is refused with its own reason.
    if mod is None or callable(mod) or isinstance(mod, (recipe, BlockMask)):
        return None
    return f"give a function, a Kernel, a {recipe.__name__} or None"


def _laws_problem(laws: Any, *, may_be_own: bool) -> str | None:
    if isinstance(laws, str):
        return None
    is_right = isinstance(laws, (list, tuple, set, frozenset)) and all(
        isinstance(each, str) or (may_be_own and callable(each)) for each in laws
    )
    own = ", or functions of a Case" if may_be_own else ""
    return None if is_right else f"give names in a tuple, or one text with commas{own}"


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
