"""Property-based testing of attention functions, with hypothesis.

``masks()``, ``score_mods()``, ``shapes()`` and ``inputs()`` are strategies; what they draw are
recipes, whose repr can be pasted after ``from attnc.testing import *`` and whose ``build()`` makes
the function or the tensors. ``check(f)`` tests a function and the kernels made from it.
"""

from __future__ import annotations

from attnc.errors import CheckFailedError
from attnc.testing.checking import CheckReport, available_backends, check
from attnc.testing.inputs import inputs, shapes
from attnc.testing.programs import Limits, masks, score_mods
from attnc.testing.recipes import InputsRecipe, MaskRecipe, ScoreRecipe, Shape, TensorRecipe
from attnc.testing.tolerance import Tolerance, assert_close_to_reference, tolerance_of

__all__ = [
    "CheckFailedError",
    "CheckReport",
    "InputsRecipe",
    "Limits",
    "MaskRecipe",
    "ScoreRecipe",
    "Shape",
    "TensorRecipe",
    "Tolerance",
    "assert_close_to_reference",
    "available_backends",
    "check",
    "inputs",
    "masks",
    "score_mods",
    "shapes",
    "tolerance_of",
]
