"""Hooks of mkdocs: what the pages of the repository need to become a site."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = {"compiler": ".", "runtime": "runtime", "codegen_templates": "codegen_templates"}
#: What the site holds of the files beside docs/, by path in the repository.
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"} | {
    f"benchmarks/results/{file.name}": f"results/{file.name}"
    for file in sorted((ROOT / "benchmarks" / "results").iterdir())
    if file.suffix in (".md", ".png")
}

_SHIM = "https://unpkg.com/iframe-worker/shim"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_startup(command: str, dirty: bool) -> None:
    """Lays the package out under its public name, where the reference is read from."""
    target = ROOT / "build" / "docs" / "attnc"
    shutil.rmtree(target, ignore_errors=True)
    only_python = shutil.ignore_patterns("__pycache__", "*.jinja")
    for folder, place in PACKAGE.items():
        shutil.copytree(ROOT / folder, target / place, ignore=only_python, dirs_exist_ok=True)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds what stands beside docs/."""
    for source, name in BESIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The same page with links that hold in the site, and with text inside of ``<details>``."""
    uri = page.file.src_uri
    path = {name: source for source, name in BESIDE.items()}.get(uri, f"docs/{uri}")

    def linked(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target, _, anchor = link.partition("#")
        if not target or "://" in target:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        place = BESIDE.get(target, target.removeprefix("docs/"))
        if place == target:
            return text  # a file of the repository that the site does not hold
        here = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"{mark}[{text}]({here}{'#' * bool(anchor)}{anchor})"

    # Links whose text is code are links too: code is set aside, but not the brackets around it.
    kept: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = _LINK.sub(linked, _CODE.sub(put_aside, markdown))
    text = re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)
    return text.replace("<details>", '<details markdown="1">')


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """With our own way to search from the disk: the theme's comes from the network."""
    return output.replace(_SHIM, "../" * page.file.src_uri.count("/") + "site.js")


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of addresses that do not exist."""
    return output_content.replace(_SHIM, "/site.js")
