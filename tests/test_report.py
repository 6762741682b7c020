"""The HTML report of a kernel: one file that tells the truth, runs nothing foreign, needs no network."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from report_pages import (
    HEADS,
    NASTY,
    PAGES,
    documents,
    inspection_of,
    nasty_report,
    reasons_in,
    written,
)
from typer.testing import CliRunner

import attnc
from attnc import report
from attnc.cli.app import app
from attnc.report.highlight import highlighted
from attnc.report.page import in_script
from attnc.report.tiles import coarsened, heads_of, wanted_tiles
from attnc.run_table import RunTable

_VOID = {"meta", "link", "br", "img", "input", "hr", "rect", "path"}


class Strict(HTMLParser):
    """Elements of a page, in order; tags that do not match are an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag
        self.text.setdefault(tag, [])

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page of ``PAGES``, as text."""
    folder = tmp_path_factory.mktemp("report")
    return {name: written(name, folder).read_text(encoding="utf-8") for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed(pages: dict[str, str], name: str) -> None:
    """Tags match, ids are unique, and what refers to an id finds it."""
    found = parsed(pages[name])

    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    named = [
        target
        for _, attrs in found.elements
        for attribute in ("for", "aria-labelledby", "aria-describedby")
        if (target := attrs.get(attribute))
    ]
    named += [
        href[1:] for _, attrs in found.elements if (href := attrs.get("href") or "").startswith("#")
    ]
    assert set(named) <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_nothing_else(pages: dict[str, str], name: str) -> None:
    """No element loads anything, the policy forbids it, and admits the page's own text by its hash."""
    found = parsed(pages[name])

    for tag, attrs in found.elements:
        assert not [key for key in attrs if key.startswith("on") or key == "style"], (tag, attrs)
        for attribute in ("src", "href", "action", "data", "srcset", "poster"):
            assert re.match(r"#|data:|$", attrs.get(attribute) or ""), (tag, attrs)
    (policy,) = [a["content"] for t, a in found.elements if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    (style,), scripts = found.text["style"], found.text["script"]
    for text in (style, scripts[-1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        assert "http" not in text
        assert "url(" not in text
        assert "import" not in text
    assert len(pages[name]) < 1_500_000


def test_a_page_shows_every_stage_and_the_sources(pages: dict[str, str]) -> None:
    """Text of each stage that could be made, the user's lines, and the costs are there."""
    inspection = inspection_of("biased")
    page = unescape(re.sub(r"<[^>]*>", "", pages["biased"]))

    assert "slopes[h] * (kv_idx - q_idx)" in page
    for text in (inspection.ir(), inspection.math(), inspection.derivative(), inspection.traced()):
        assert text in page
    for cost in inspection.costs(measure=False).values():
        assert f"{cost.n_visited:,}" in page
    assert inspection.target.name in page
    assert attnc.__version__ in page


@pytest.mark.parametrize("name", PAGES)
def test_the_picture_holds_the_tiles_of_the_kernel(pages: dict[str, str], name: str) -> None:
    """Every batch and head unpacks to its tiles, and the reasons are those of ``why``."""
    mask = json.loads(parsed(pages[name]).text["script"][0])["mask"]
    inspection = inspection_of(name)
    analysis = inspection.analysis((mask["blockM"], mask["blockN"]))
    table = analysis.table
    dense = table.to_dense()

    covered = set()
    for head in mask["heads"]:
        kinds = unpacked(head["runs"], head["nRuns"], table.n_q_blocks, table.n_kv_blocks)
        for b, h in head["of"]:
            assert (kinds == dense[b, h]).all()
            covered.add((b, h))
        assert head["counts"] == [int((kinds == kind).sum()) for kind in range(3)]
    assert covered == {(b, h) for b in range(table.n_batch) for h in range(table.n_heads)}

    for head, reasons in zip(mask["heads"], reasons_in(mask), strict=True):
        b, h = head["of"][0]
        told = list(reasons.items())
        for (row, column), text in told[:: max(len(told) // 12, 1)]:
            assert text == str(analysis.why(row, column, b, h)).partition("\n")[2]
        if len(mask["heads"]) == 1:
            assert set(zip(*np.nonzero(dense[b, h]), strict=True)) <= set(reasons)


def unpacked(text: str, n_runs: int, n_rows: int, n_columns: int) -> NDArray[np.int64]:
    """Classes of tiles as the page's script reads them."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    ends = np.cumsum([4 * n_rows, 4 * n_runs, 4 * n_runs, n_runs])
    *numbers, kinds = np.split(data, ends[:-1])
    counts, starts, lengths = (
        np.ascontiguousarray(part.reshape(4, -1).T).view("<i4")[:, 0] for part in numbers
    )
    dense = np.zeros((n_rows, n_columns), np.int64)
    for row, start, length, kind in zip(
        np.repeat(np.arange(n_rows), counts), starts, lengths, kinds, strict=True
    ):
        dense[row, start : start + length] = kind
    return dense


@st.composite
def tables(draw: st.DrawFn) -> RunTable:
    shape = (*(draw(st.integers(1, 2)) for _ in "bh"), *(draw(st.integers(1, 9)) for _ in "mn"))
    kinds = draw(
        st.lists(st.integers(0, 2), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    )
    dense = np.array(kinds, np.int8).reshape(shape)
    return RunTable.from_dense(
        dense, n_queries=4 * shape[2] - 1, n_keys=2 * shape[3] - 1, block_m=4, block_n=2
    )


@given(tables(), st.integers(1, 4))
def test_larger_tiles_are_what_all_in_them_are(table: RunTable, factor: int) -> None:
    """EMPTY or FULL if all tiles inside are, else PARTIAL."""
    dense, coarse = table.to_dense(), coarsened(table, factor).to_dense()

    for b, h, row, column in np.ndindex(*coarse.shape):
        inside = dense[b, h, factor * row :, factor * column :][:factor, :factor]
        whole = inside.min() if inside.min() == inside.max() else 1
        assert coarse[b, h, row, column] == whole


@given(tables())
def test_tiles_to_explain_are_tiles_of_the_mask(table: RunTable) -> None:
    """Each once; all visited ones, unless only samples were asked for."""
    for head in heads_of(table).shown:
        visited = set(zip(*np.nonzero(table.to_dense()[head.b, head.h]), strict=True))
        for is_short in (False, True):
            tiles, has_all = wanted_tiles(table, head, is_short=is_short)
            assert len(set(tiles)) == len(tiles)
            assert all(0 <= r < table.n_q_blocks and 0 <= c < table.n_kv_blocks for r, c in tiles)
            assert has_all is not is_short
            assert visited <= set(tiles) or is_short


texts = st.text() | st.lists(
    st.sampled_from(["<", ">", "&", '"', "'", "</script>", "<!--", "-->", "]]>", "{{", "x", "\n"])
).map("".join)


@given(texts, st.sampled_from(["text", "python", "cpp", "asm", "mlir"]))
@example(NASTY, "python")
@example(NASTY, "cpp")
def test_highlighted_text_reads_as_it_was_written(text: str, language: Any) -> None:
    """Escapes what HTML would take for its own, loses nothing, and adds spans only."""
    shown = highlighted(text, language)

    assert (
        not set(re.findall(r"<[^>]*>", shown))
        - {"</span>"}
        - {f'<span class="{name}">' for name in "ckmsfbd"}
    )
    assert unescape(re.sub(r"<[^>]*>", "", shown)) == text


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
@example(NASTY)
def test_data_of_the_script_ends_no_element(data: Any) -> None:
    """JSON that reads as what was put in, without a character that HTML minds."""
    text = in_script(data)

    assert json.loads(text) == data
    assert not set(text) & set("<>&\u2028\u2029")


def test_what_a_user_wrote_is_text(tmp_path: Path) -> None:
    """Names, docstrings, lines of source and captured names become no element and no template."""
    page = nasty_report(tmp_path)
    found = parsed(page.read_text(encoding="utf-8"))

    assert "img" not in {tag for tag, _ in found.elements}
    assert len([tag for tag, _ in found.elements if tag == "script"]) == 2
    assert "{{ 7*7 }}" in "".join(found.text["h1"])


def test_inspect_writes_a_report(tmp_path: Path) -> None:
    """`attnc inspect --html` writes the page and says so; a folder that is not there is one line."""
    path = tmp_path / "page.html"
    arguments = ["inspect", "--expr", "lambda b, h, q, kv: q >= kv", "--shape", "1,1,256,256,32"]
    arguments += ["--stage", "ir", "--target", "sm_90"]

    done = CliRunner().invoke(app, [*arguments, "--html", str(path)], prog_name="attnc")
    refused = CliRunner().invoke(app, [*arguments, "--html", str(tmp_path / "no" / "page.html")])

    assert done.exit_code == 0, done.output
    assert f"wrote {path}" in done.output
    assert "<!doctype html>" in path.read_text()
    assert refused.exit_code == 2
    assert "No such file" in refused.output


def test_a_page_has_the_kernels_of_the_pass_asked_for(tmp_path: Path) -> None:
    """`--pass` counts on pages too; what a page cannot hold is refused, not left out."""
    path = tmp_path / "page.html"
    arguments = ["inspect", "--expr", "lambda b, h, q, kv: q >= kv", "--shape", "1,1,256,256,32"]
    arguments += ["--stage", "plan", "--target", "sm_90", "--html"]

    done = CliRunner().invoke(app, [*arguments, str(path), "--pass", "backward"])

    assert done.exit_code == 0, done.output
    names = re.findall(r"<summary>(.*?)</summary>", path.read_text())
    assert names == ["plan · backward"]
    other = str(tmp_path / "other.html")
    for more in ([other, "--json"], [other, "--diff"], [other, "--pass", "both"], [""]):
        refused = CliRunner().invoke(app, [*arguments, *more])
        assert refused.exit_code == 2
        assert len(refused.stderr.splitlines()) == 1
    assert not Path(other).exists()


def test_a_summary_is_of_the_function(tmp_path: Path) -> None:
    """Docstrings of ``partial`` and of other classes say nothing of the mask."""

    def within(width: int, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        """Pairs that lie near."""
        return q_idx - kv_idx < width

    class Causal:
        """Some class."""

        def __call__(self, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return q_idx >= kv_idx

    summaries = []
    for mod in (functools.partial(within, 9), Causal()):
        path = report.write(mod, tmp_path / "page.html", shape=(1, 1, 64, 64, 16), stages=["ir"])
        summaries.append(re.findall(r"<p>(.*?)</p>", path.read_text().partition("<ul")[0]))

    assert summaries == [["Pairs that lie near."], []]


def test_masks_that_were_joined_show_the_users_lines(tmp_path: Path) -> None:
    """Of ``&``, ``and_masks`` and a score's mask: nothing that attnc wrote to join them."""

    def near(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx - kv_idx < 9

    both = attnc.and_masks(documents.fn, near)
    capped = attnc.kernel(mask=both)(lambda score, b, h, q_idx, kv_idx: 5 * (score / 5).tanh())
    for mod in (documents & near, both, attnc.kernel(both), capped):
        path = report.write(mod, tmp_path / "page.html", shape=(1, 1, 64, 64, 16), stages=["ir"])

        shown = unescape(re.sub(r"<[^>]*>", "", path.read_text().partition("<dl")[0]))
        assert "return q_idx - kv_idx < 9" in shown
        assert "return (q_idx >= kv_idx) & (same | (kv_idx < 40))" in shown
        assert "mask_mods" not in shown
        assert "self.fn" not in shown
        assert ("tanh" in shown) is (mod is capped)


def test_a_kernel_writes_its_report(tmp_path: Path) -> None:
    """``Kernel.report`` gives the file it wrote."""
    path = documents.report(tmp_path / "page.html", shape=(1, 1, 512, 512, 32), stages=["ir"])

    assert path == tmp_path / "page.html"
    assert "documents" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "sm_90"])
def test_a_page_of_all_stages_is_small(tmp_path: Path, target: str) -> None:
    """Machine code too, packed; what cannot be made here tells why."""
    path = report.write(documents, tmp_path / "page.html", target=target)

    found = parsed(path.read_text())
    assert path.stat().st_size < 1_500_000
    names = [attrs["data-name"] for _, attrs in found.elements if "data-name" in attrs]
    assert {"ir", "math", "resources"} <= set(names)
    assert ("assembly" if target == "cpu" else "ptx") in names


def test_heads_that_look_alike_are_held_once() -> None:
    """One picture per distinct head."""
    table = inspection_of("heads").analysis(64).table

    heads = heads_of(table)

    assert [head.also for head in heads.shown] == [((0, 0), (0, 2)), ((0, 1),)]
    assert len(HEADS) == table.n_heads
