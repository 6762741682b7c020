"""Property-based testing of attention functions, with hypothesis.

``masks()``, ``score_mods()``, ``shapes()`` and ``inputs()`` are strategies; what they draw are
recipes, whose repr can be pasted after ``from attnc.testing import *`` and whose ``build()`` makes
the function or the tensors. ``check(f)`` tests a function and the kernels made from it, by the laws
in ``LAWS``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnc.errors import CheckFailedError
    from attnc.testing.backends import available_backends
    from attnc.testing.case import Case, Outcome
    from attnc.testing.checking import check
    from attnc.testing.gradients import assert_gradients_close, expected_gradients
    from attnc.testing.input_strategies import inputs, shapes
    from attnc.testing.laws import LAWS, Failure, Law, law
    from attnc.testing.programs import masks, score_mods
    from attnc.testing.recipes import (
        InputsRecipe,
        Limits,
        MaskRecipe,
        ScoreRecipe,
        Shape,
        TensorRecipe,
    )
    from attnc.testing.report import CheckReport, Examined
    from attnc.testing.tolerance import Tolerance, assert_close_to_reference, tolerance_of

_HOMES = {
    "Case": "case",
    "CheckReport": "report",
    "Examined": "report",
    "Failure": "laws",
    "InputsRecipe": "recipes",
    "LAWS": "laws",
    "Law": "laws",
    "Limits": "recipes",
    "MaskRecipe": "recipes",
    "Outcome": "case",
    "ScoreRecipe": "recipes",
    "Shape": "recipes",
    "TensorRecipe": "recipes",
    "Tolerance": "tolerance",
    "assert_close_to_reference": "tolerance",
    "assert_gradients_close": "gradients",
    "available_backends": "backends",
    "check": "checking",
    "expected_gradients": "gradients",
    "inputs": "input_strategies",
    "law": "laws",
    "masks": "programs",
    "score_mods": "programs",
    "shapes": "input_strategies",
    "tolerance_of": "tolerance",
}
# Written out for static checkers; _HOMES has the same names.
__all__ = [
    "LAWS",
    "Case",
    "CheckFailedError",
    "CheckReport",
    "Examined",
    "Failure",
    "InputsRecipe",
    "Law",
    "Limits",
    "MaskRecipe",
    "Outcome",
    "ScoreRecipe",
    "Shape",
    "TensorRecipe",
    "Tolerance",
    "assert_close_to_reference",
    "assert_gradients_close",
    "available_backends",
    "check",
    "expected_gradients",
    "inputs",
    "law",
    "masks",
    "score_mods",
    "shapes",
    "tolerance_of",
]


def __getattr__(name: str) -> Any:
    # pytest imports attnc.testing.plugin at each start, whoever tests what: torch waits.
    if name == "CheckFailedError":
        value = import_module("attnc.errors").CheckFailedError
    elif name in _HOMES:
        value = getattr(import_module(f"attnc.testing.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'attnc.testing' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
