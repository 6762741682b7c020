"""Every class of ``attnc.errors`` has a test of its text, in the file of its room."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from error_texts import covered

from attnc import errors


@pytest.fixture(autouse=True)
def _rooms() -> None:
    """The tests of all rooms are imported: they say which classes they cover."""
    for path in Path(__file__).parent.glob("test_errors_*.py"):
        importlib.import_module(path.stem)


def test_every_class_is_raised() -> None:
    """A class without a test of its text would not be noticed."""
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    own = {cls for cls in classes if cls.__module__ == errors.__name__}
    families = {base for cls in own for base in cls.__bases__}

    assert own - families <= covered <= own


def test_each_error_is_a_standard_one_too() -> None:
    """`except ValueError` catches what ValueError is for."""
    standard = (
        ValueError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ImportError,
        AssertionError,
        AttributeError,
        IndexError,
        UserWarning,
    )
    assert all(issubclass(cls, standard) for cls in covered)
    assert all(issubclass(cls, (errors.AttncError, UserWarning)) for cls in covered)
