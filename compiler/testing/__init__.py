"""Property-based testing of attention functions, with hypothesis.

``masks()``, ``score_mods()``, ``shapes()`` and ``inputs()`` are strategies; what they draw are
recipes, whose repr can be pasted after ``from attnc.testing import *`` and whose ``build()`` makes
the function or the tensors.
"""

from __future__ import annotations

from attnc.testing.inputs import inputs, shapes
from attnc.testing.programs import Limits, masks, score_mods
from attnc.testing.recipes import InputsRecipe, MaskRecipe, ScoreRecipe, Shape, TensorRecipe

__all__ = [
    "InputsRecipe",
    "Limits",
    "MaskRecipe",
    "ScoreRecipe",
    "Shape",
    "TensorRecipe",
    "inputs",
    "masks",
    "score_mods",
    "shapes",
]
