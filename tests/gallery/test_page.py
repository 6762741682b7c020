"""The page about the gallery says what the gallery is."""

from __future__ import annotations

import pytest
from gallery.harness import SYSTEMS

from benchmarks.systems import PAGE, page


def test_the_page_of_systems_is_up_to_date() -> None:
    """Else write it anew: ``python -m benchmarks.systems``."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_described(name: str) -> None:
    """The docstring of its builder is what the page says about it."""
    assert SYSTEMS[name].build.__doc__
