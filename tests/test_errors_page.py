"""The page of errors."""

from __future__ import annotations

from importlib import util
from pathlib import Path

PATH = Path(__file__).parents[1] / "docs" / "make_errors.py"


def test_the_page_of_errors_shows_what_is_raised() -> None:
    """docs/errors.md is what ``python docs/make_errors.py`` writes."""
    spec = util.spec_from_file_location("make_errors", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.PAGE.read_text() == module.page()
