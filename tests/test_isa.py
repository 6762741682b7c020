"""What is read of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnc.runtime import isa


@pytest.mark.parametrize("end", ["", "\n\nprocessor : 1\nmodel name : Other\n"])
def test_the_first_processor_is_read_to_its_end(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty line ends it, or the file."""
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor : 0\nmodel name : One{end}")
    monkeypatch.setattr(isa, "_CPUINFO", told)
    assert isa._told() == ["processor : 0", "model name : One"]
