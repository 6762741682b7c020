"""docs/library/: the pages say what docstrings and analysis say, and what they show runs."""

from __future__ import annotations

import importlib.util
import re
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

from attnc import library
from attnc.decorator import Kernel

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "library"
LARGEST_PICTURE = 15_000  # bytes


@pytest.fixture(scope="module")
def make_library() -> ModuleType:
    """The script that writes the pages."""
    file = ROOT / "docs" / "make_library.py"
    spec = importlib.util.spec_from_file_location("make_library", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_library"] = module  # dataclasses look for the module of a class
    spec.loader.exec_module(module)
    return module


def blocks_of(language: str) -> list[tuple[str, str]]:
    """Page and text of every code block in that language."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return [
        (page.stem, block)
        for page in sorted(FOLDER.glob("*.md"))
        for block in re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def test_pages_are_up_to_date(make_library: ModuleType) -> None:
    """Running ``python docs/make_library.py`` would change no text."""
    expected = make_library.pages()

    assert {page.name for page in FOLDER.glob("*.md")} == set(expected)
    for name, text in expected.items():
        assert (FOLDER / name).read_text() == text, f"run python docs/make_library.py: {name}"


def test_every_family_and_mask_has_its_place(make_library: ModuleType) -> None:
    """A page for each family, and sizes at 4096 tokens for each mask."""
    entries = library.ENTRIES.values()

    assert set(make_library.FAMILIES) == {entry.family for entry in entries}
    masks = {entry.name for entry in entries if entry.kernel().kind == "mask_mod"}
    assert set(make_library.LONG) == masks


def test_every_code_block_runs() -> None:
    """Each entry has one, which gives its Kernel."""
    blocks = blocks_of("python")

    for _, block in blocks:
        names: dict[str, object] = {}
        exec(block, names)  # noqa: S102  (that it runs is the claim)
        assert isinstance(names.get("mask", names.get("score", names.get("local"))), Kernel)
    assert len(blocks) == len(library.ENTRIES) + 1


def test_every_entry_has_a_small_picture() -> None:
    """A PNG in a palette, below 15 kB; the pages show each of them, and there are no others."""
    text = "".join(page.read_text() for page in FOLDER.glob("*.md"))
    shown = re.findall(r"!\[\w+\]\(pictures/(\w+)\.png\)", text)

    assert sorted(shown) == sorted(library.ENTRIES)
    assert {file.stem for file in (FOLDER / "pictures").iterdir()} == set(library.ENTRIES)
    for file in (FOLDER / "pictures").iterdir():
        data = file.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) < LARGEST_PICTURE
        (kind,) = struct.unpack(">B", data[25:26])
        assert kind == 3, "colours of a palette"
