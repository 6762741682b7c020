"""The documentation: what pages show runs, and the site is whole and needs no network."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pages
import pytest

from attnc.runtime import cpu
from attnc.runtime.locks import alone

#: Other people's warnings, each with the page that meets it.
IGNORED_WARNINGS = (
    "flex_attention called without torch.compile",  # migration.md runs PyTorch's as it is
    "`torch.jit",  # README.md imports transformers
)
PUBLIC = (
    "attnc",
    "attnc.bench",
    "attnc.errors",
    "attnc.export",
    "attnc.interchange",
    "attnc.layout",
    "attnc.library",
    "attnc.prove",
    "attnc.report",
    "attnc.testing",
)


@pytest.fixture(scope="session")
def runner() -> Iterator[subprocess.Popen[str]]:
    """The program that does what pages show."""
    program = Path(__file__).parent / "page_runner.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def names_of(found: Iterable[Path]) -> dict[str, Any]:
    return {"argvalues": found, "ids": lambda page: page.relative_to(pages.ROOT).as_posix()}


def pages_with(*, slow: bool) -> list[Path]:
    """Pages where there is something to run; ``slow``: something that only the slow tests do."""
    found = {page: pages.steps_of(page) for page in pages.PAGES}
    quick = {page: pages.steps_of(page, with_slow=False) for page in pages.PAGES}
    return [page for page in found if (found[page] != quick[page] if slow else quick[page])]


@pytest.mark.parametrize("page", **names_of(pages_with(slow=False)))
def test_page_does_what_it_shows(page: Path, runner: subprocess.Popen[str], tmp_path: Path) -> None:
    """Every block of a page, in order, in one namespace and one folder; printed text is compared."""
    run(page, pages.steps_of(page, with_slow=False), runner, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", **names_of(pages_with(slow=True)))
def test_page_does_what_it_shows_slowly(
    page: Path, runner: subprocess.Popen[str], tmp_path: Path
) -> None:
    """The same with those commands that build kernels of their own."""
    run(page, pages.steps_of(page), runner, tmp_path)


def make_history(folder: Path) -> None:
    """Makes the folder a repository with two equal revisions."""
    git = ["git", "-C", str(folder), "-c", "user.name=reader", "-c", "user.email=reader@here"]
    for command in (["init", "-q"], ["add", "."], *[["commit", "-q", "--allow-empty", "-mx"]] * 2):
        subprocess.run([*git, *command], check=True)


def run(page: Path, steps: list[pages.Step], runner: subprocess.Popen[str], tmp_path: Path) -> None:
    """Fails with what went wrong first."""
    shutil.copytree(pages.ROOT / "examples", tmp_path / "examples")
    if any("@HEAD" in step.text for step in steps):
        make_history(tmp_path)
    request = {
        "page": str(page),
        "folder": str(tmp_path),
        "steps": [asdict(step) for step in steps],
        "optimization": cpu.OPTIMIZATION,
        "ignored_warnings": IGNORED_WARNINGS,
    }
    assert runner.stdin is not None
    assert runner.stdout is not None

    runner.stdin.write(json.dumps(request) + "\n")
    runner.stdin.flush()
    failure = json.loads(runner.stdout.readline())

    if failure is not None:
        pytest.fail(failure, pytrace=False)


@pytest.mark.parametrize("pattern", pages.SKIPPED)
def test_what_is_skipped_is_shown_somewhere(pattern: str) -> None:
    """Each pattern of what no test runs is needed; whatever fits none is run."""
    shown = [command for page in pages.PAGES for command in pages.commands_of(page)]

    assert any(pages.fits(command, pattern) for command in shown)


def test_pages_hold_nothing_that_cannot_run() -> None:
    """Every fence has a language, and every block is closed."""
    for page in pages.PAGES:
        blocks = pages.blocks_of(page)

        assert {block.language for block in blocks} <= pages.LANGUAGES, page
        n_fences = sum(line.lstrip().startswith("```") for line in page.read_text().splitlines())
        assert n_fences == 2 * sum(not block.is_hidden for block in blocks), page


@pytest.mark.parametrize("name", ["make_performance", "make_pictures"])
def test_written_pages_are_up_to_date(name: str) -> None:
    """The scripts would write what is there."""
    script = runpy.run_path(str(pages.ROOT / "docs" / f"{name}.py"))

    if name == "make_performance":
        assert script["PAGE"].read_text() == script["page"](), "run python docs/make_performance.py"
        return
    for file, draw in script["PICTURES"].items():
        assert (script["FOLDER"] / file).read_text() == draw(), "run python docs/make_pictures.py"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly, where a link without a target fails; once for all workers."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with alone(folder.with_suffix(".lock"), patience=600.0):
        return folder if folder.exists() else _built(folder)


def _built(folder: Path) -> Path:
    # What is built with warnings is there all the same: no other worker may take it for the site.
    work = folder.with_suffix(".new")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(work)]
    # A proxy that is not there: whatever asks for the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        command,
        cwd=pages.ROOT,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return work.rename(folder)


class Links(HTMLParser):
    """What a page of the site loads, links to, and can be linked at."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


@functools.cache
def links_of(page: Path) -> Links:
    """Of a page of the site, which does not change once it is built."""
    return Links(page)


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, pictures and fonts are files of the site."""
    for page in site.rglob("*.html"):
        # What does not exist has no place that a relative address could start from.
        folder = site if page.name == "404.html" else page.parent
        for address in links_of(page).loads:
            parts = urlsplit(address)
            assert not parts.netloc, f"{page.name} loads {address}"
            if parts.scheme != "data":
                assert (folder / parts.path.lstrip("/")).resolve().exists(), f"{page}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text()), style


def test_links_lead_somewhere(site: Path) -> None:
    """Every link inside of the site has a page, and an anchor on it."""
    found = {page: links_of(page) for page in site.rglob("*.html") if page.name != "404.html"}

    for page, links in found.items():
        for address in links.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name} links to {address}"
            if parts.fragment and target in found:
                anchors = found[target].anchors
                assert unquote(parts.fragment) in anchors, f"{page.name} links to {address}"


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """A heading for each name in ``__all__`` of the public modules."""
    anchors = {x for page in (site / "reference").glob("*.html") for x in links_of(page).anchors}

    for name in PUBLIC:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            # A function may have the name of the module that it stands in.
            places = {f"{name}.{public}", f"{name}.{public}.{public}"}
            assert places & anchors, f"{name}.{public}"
    assert "attnc.integrations.transformers.register" in anchors


def test_every_page_can_be_found(site: Path) -> None:
    """Each page of docs/ is in the navigation."""
    navigation = {
        (site / urlsplit(link).path).resolve() for link in links_of(site / "index.html").links
    }
    pages_of_docs = (page for page in pages.PAGES if page.is_relative_to(pages.ROOT / "docs"))

    for page in pages_of_docs:
        place = page.relative_to(pages.ROOT / "docs")
        built = place.with_name(place.name.replace("README.md", "index.md")).with_suffix(".html")
        assert (site / built).resolve() in navigation, f"{place} is not in mkdocs.yml"
