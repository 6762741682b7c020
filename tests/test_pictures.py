"""Pictures of masks and scores: what is drawn is what the function gives, in every form."""

from __future__ import annotations

import base64
import math
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

import attnc
from attnc import library
from attnc.analysis import analyze
from attnc.pictures import Content, Curve, Drawing, Heat, Pairs, html_page, plain, text_lines

ENTRIES = tuple(library.ENTRIES.values())
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def page_of(content: Content) -> str:
    return html_page([Drawing("f(<1>)", "a & b", "", "", content)])


def drawn_cells(page: str, name: str) -> NDArray[np.bool_]:
    """The cells that the path of one class covers, drawn as a browser would."""
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', page)
    assert size is not None
    cells = np.zeros((int(size[2]), int(size[1])), np.int64)
    path = re.search(rf'<path class="{name}" d="([^"]*)"', page)
    runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path[1]) if path else []
    for x, y, width, back in runs:
        assert width == back
        cells[int(y), int(x) : int(x) + int(width)] += 1
    assert cells.max(initial=0) <= 1
    return cells == 1


def decoded_png(data: bytes) -> NDArray[np.uint8]:
    """Palette indices of a PNG without filters and interlacing; its checksums are verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
values = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf]),
)


@given(masks)
def test_pairs_are_the_same_in_text_and_html(visible: NDArray[np.bool_]) -> None:
    """Each form has exactly the visible pairs."""
    content = Pairs(visible)

    rows = plain(text_lines(content)).splitlines()[:-1]

    in_text = [[cell == "██" for cell in re.findall("██|··", row)] for row in rows]
    assert in_text == visible.tolist()
    assert np.array_equal(drawn_cells(page_of(content), "full"), visible)


@given(values)
def test_heat_keeps_the_order_of_values(found: NDArray[np.float32]) -> None:
    """A larger value is never drawn lower; a masked pair is blank, in text and in HTML."""
    content = Heat(found, 0.0, 1, 1)

    lines = text_lines(content)[: len(found)]
    shades = np.array([["·░▒▓█".find(mark) for mark in line[1][0][::2]] for line in lines])
    encoded = re.search(r'src="data:image/png;base64,([^"]*)"', page_of(content))
    assert encoded is not None
    pixels = decoded_png(base64.b64decode(encoded[1]))

    is_masked = np.isnan(found)
    assert np.array_equal(shades == -1, is_masked)
    assert np.array_equal(pixels == 0, is_masked)
    order = np.argsort(found[~is_masked], kind="stable")
    assert np.all(np.diff(shades[~is_masked][order]) >= 0)
    assert np.all(np.diff(pixels[~is_masked][order].astype(int)) >= 0)


@given(values)
def test_colours_change_no_places(found: NDArray[np.float32]) -> None:
    """Where colours are shown each value takes the same columns as its shade."""
    content = Heat(found, 0.0, 1, 1)

    coloured = text_lines(content, coloured=True)[: len(found)]

    for line, row in zip(coloured, found, strict=True):
        styles = [style for text, style in line[1:] for _ in text[::2]]
        assert [style == "" for style in styles] == np.isnan(row).tolist()


@each_entry
def test_entry_is_shown_with_what_is_said_of_it(entry: library.Entry) -> None:
    """Its example, summary and source; for masks the number of pairs that they show."""
    result = invoke("show", f"library:{entry.name}")

    assert result.exit_code == 0, result.stderr
    title, summary, source, empty, *picture = result.stdout.splitlines()
    assert title.startswith(entry.example)
    assert summary == entry.summary.replace("``", "`")
    assert source == f"Source: {entry.source}"
    assert empty == ""
    kernel = entry.kernel()
    if kernel.kind == "mask_mod":
        visible = attnc.create_mask(kernel, *entry.shape)[0, 0]
        assert picture[-1] == f"{int(visible.sum())} of {visible.numel()} pairs are visible"
        marks = [[cell == "██" for cell in re.findall("██|··", row)] for row in picture[:-1]]
        assert marks == visible.tolist()
    else:
        assert " become" in picture[-1]


@each_entry
def test_html_needs_nothing_else_and_is_small(entry: library.Entry, tmp_path: Path) -> None:
    """Title, summary and source; light and dark; no address of anything else."""
    file = tmp_path / "page.html"

    result = invoke("show", f"library:{entry.name}", "--html", str(file))

    assert result.exit_code == 0, result.stderr
    page = file.read_text()
    assert result.stdout == f"wrote {file}, {len(page.encode()):,} bytes\n"
    assert len(page) < 30_000
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    assert "<script" not in page
    assert page.count("<figure>") == (min(entry.shape[1], 4) if _heads_differ(entry) else 1)


def _heads_differ(entry: library.Entry) -> bool:
    kernel, (_, n_heads, n_queries, n_keys) = entry.kernel(), entry.shape
    if kernel.kind == "mask_mod":
        seen = attnc.create_mask(kernel, *entry.shape)[0].float()
    else:
        h, q_idx, kv_idx = torch.meshgrid(
            *(torch.arange(n) for n in (n_heads, n_queries, n_keys)), indexing="ij"
        )
        seen = kernel(torch.zeros(()), torch.tensor(0), h, q_idx, kv_idx).expand(h.shape)
    return bool((seen != seen[0]).any())


def test_text_in_html_is_escaped() -> None:
    """What was typed shows as typed."""
    page = page_of(Pairs(np.ones((2, 2), np.bool_)))

    assert "<h1>f(&lt;1&gt;)</h1>" in page
    assert "<p>a &amp; b</p>" in page


def test_tiles_in_html_are_those_of_the_analysis(tmp_path: Path) -> None:
    """Classes of 16 x 16 tiles, as the analysis has them."""
    file = tmp_path / "page.html"
    shape = ("--shape", "1,1,1024,1024,8", "--block", "64")

    invoke("show", "library:causal() & sliding_window(300)", *shape, "--html", str(file))

    mask = library.causal() & library.sliding_window(300)
    table = analyze(mask, 1, 1, 1024, 1024, 64).table
    page = file.read_text()
    assert drawn_cells(page, "partial").sum() == table.n_partial
    assert drawn_cells(page, "full").sum() == table.n_full


def test_score_that_reads_no_positions_is_a_curve() -> None:
    """From one end of the cap to the other, through 0."""
    result = invoke("show", "library:softcap(5.0)")

    rows = [line for line in result.stdout.splitlines() if "┤" in line or "│" in line]
    points = [(y, x) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark == "•"]
    columns = [y for y, x in sorted(points, key=lambda point: point[1])]
    assert columns == sorted(columns, reverse=True)
    low, high = float(rows[-1].split()[0]), float(rows[0].split()[0])
    assert low == -high
    assert 4.5 < high < 5


@pytest.mark.parametrize(("factor", "reach"), [("1", 10), ("0.25", 10)])
def test_straight_score_has_the_usual_range(factor: str, reach: int) -> None:
    """What bends nowhere is drawn from -10 to 10."""
    result = invoke("show", "--expr", f"lambda score, b, h, q, kv: score * {factor}")

    last = result.stdout.splitlines()[-1]
    end = reach * float(factor)
    assert last == f"scores of -{reach} to {reach} become {-end:g} to {end:g}"


def test_factor_of_scores_is_shown_at_one() -> None:
    """At a score of 0 a factor would show nothing."""
    result = invoke(
        "show", "--expr", "lambda score, b, h, q, kv: score * (q + 1)", "--shape", SMALL
    )

    assert result.stdout.splitlines()[-1] == "a score of 1 becomes 1 to 8"


SMALL = "1,1,8,8,8"


def test_masked_pairs_of_a_score_are_blank() -> None:
    """A score with a mask is drawn where it is visible."""
    result = invoke("show", "library:alibi(1).where(causal())", "--shape", SMALL)

    rows = result.stdout.splitlines()[:8]
    assert [len(row[4:]) for row in rows] == [2 * (q_idx + 1) for q_idx in range(8)]
    assert "blank: masked" in result.stdout


def test_long_scores_are_sampled_to_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and columns fit, and it is told which positions are shown."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "24")

    lines = invoke("show", "library:alibi(1)", "--shape", "1,1,100000,70000,8").stdout.splitlines()

    assert len(lines) < 24
    drawn = [line for line in lines if re.match(r" *\d+ [█▓▒░·]+$", line)]
    assert len(drawn) > 10
    assert max(map(len, drawn)) <= 60
    assert any(
        re.fullmatch(r"shown: every [\d,]+\. query and every [\d,]+\. key", x) for x in lines
    )


def test_list_names_every_entry_by_family() -> None:
    """``--list`` and ``library:`` alone print each name once, with its summary."""
    result = invoke("show", "--list")

    lines = result.stdout.splitlines()
    for entry in ENTRIES:
        (line,) = [line for line in lines if line.split()[:1] == [f"library:{entry.name}"]]
        assert line.endswith(entry.summary.replace("``", "`"))
    headings = re.findall(r"^== (\w+) ==$", result.stdout, re.MULTILINE)
    assert sorted(headings) == sorted({entry.family for entry in ENTRIES})
    assert invoke("show", "library:").stdout == result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "library:sliding_window", "--stage", "math"),
        ("inspect", "library:causal() & documents(torch.tensor([0, 0, 1]))", "--stage", "ir"),
        ("prove", "library:documents", "--causal", "--in-bounds"),
        ("prove", "library:sliding_window(5)", "--implies", "library:causal"),
        ("check", "library:chunked(5)", "--examples", "1"),
    ],
    ids=" ".join,
)
def test_every_command_takes_the_library(command: tuple[str, ...]) -> None:
    """Names and expressions of the library are targets as files and modules are."""
    result = invoke(*command)

    assert result.exit_code == 0, result.stdout + result.stderr
    assert result.stdout


def test_example_has_its_own_shape() -> None:
    """Without ``--shape`` an entry is taken at the lengths that its tensors are made for."""
    for name in ("tree", "documents", "windows_per_head"):
        _, n_heads, n_queries, n_keys = library.ENTRIES[name].shape
        sizes = f"1,{n_heads},{n_queries},{n_keys},64"
        for command in (("show",), ("inspect", "--stage", "blocks", "--target", "sm_90")):
            found = invoke(command[0], f"library:{name}", *command[1:])
            named = invoke(command[0], f"library:{name}", *command[1:], "--shape", sizes)
            assert found.exit_code == 0, found.stderr
            assert found.stdout == named.stdout


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("library:sliding_windw", "library has no 'sliding_windw'. Did you mean sliding_window or"),
        ("library:alibi_slopes", "`attnc show --list` names all entries."),
        ("library:sliding_windw(5)", "NameError: name 'sliding_windw' is not defined"),
        ("library:sliding_window(-4)", "attnc.library.sliding_window(left=-4): give an int"),
        ("library:alibi_slopes(4)", "library:alibi_slopes(4) is of class Tensor, not a function."),
        ("library:chunked(", "library:chunked( cannot be used: '(' was never closed"),
    ],
)
def test_mistake_in_a_library_target_is_one_clear_line(target: str, told: str) -> None:
    result = invoke("show", target)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr


def test_png_is_small_and_named(tmp_path: Path) -> None:
    """One PNG with a panel for each head, in a palette."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "picture.png"

    result = invoke("show", "library:alibi", "--png", str(file))

    assert result.exit_code == 0, result.stderr
    data = file.read_bytes()
    assert result.stdout == f"wrote {file}, {len(data):,} bytes\n"
    assert len(data) < 15_000
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert width > 3 * height
    assert kind == 3, "colours of a palette"
    assert depth <= 8


def test_missing_matplotlib_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to run; no file is written, not even one that could be."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    png, html = tmp_path / "picture.png", tmp_path / "page.html"

    result = invoke("show", "library:causal", "--png", str(png), "--html", str(html))

    assert result.exit_code == 2
    problem = "matplotlib is not installed. Run `pip install matplotlib`."
    assert result.stderr == f"attnc: error: --png {str(png)!r}: {problem}\n"
    assert not list(tmp_path.iterdir())


def test_why_draws_no_files(tmp_path: Path) -> None:
    """A tile is explained in words only."""
    file = tmp_path / "page.html"

    result = invoke("show", "library:causal", "--why", "0,0", "--html", str(file))

    assert result.exit_code == 2
    assert "leave out --png and --html" in result.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a terminal is made by openpty")
def test_terminal_gets_colours() -> None:
    """On a terminal a heat map is colours, and the text around it is whole."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "attnc", "show", "library:alibi", "--shape", "1,1,8,8,8"]

    with subprocess.Popen(command, stdout=theirs, env=environment):
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            written += part
    os.close(ours)

    text = written.decode()
    assert "\x1b[48;2;253;231;37m" in text, "the largest value"
    assert "\x1b[48;2;68;1;84m" in text, "the least"
    assert library.ENTRIES["alibi"].source in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_curve_through_one_value_is_drawn() -> None:
    """A score that is replaced by a constant has a flat line, without a division by 0."""
    curve = Curve(np.array([-1.0, 0.0, 1.0], np.float32), np.zeros(3, np.float32))

    assert "•" * 61 in plain(text_lines(curve))
    assert "nan" not in page_of(curve)
