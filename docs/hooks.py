"""Hooks of mkdocs: what the pages of the repository need to become a site."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = {"compiler": ".", "runtime": "runtime", "codegen_templates": "codegen_templates"}
#: Pages that stand beside docs/ in the repository.
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

_SHIM = "https://unpkg.com/iframe-worker/shim"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_startup(command: str, dirty: bool) -> None:
    """Lays the package out under its public name, where the reference is read from."""
    target = ROOT / "build" / "docs" / "attnc"
    shutil.rmtree(target, ignore_errors=True)
    only_python = shutil.ignore_patterns("__pycache__", "*.jinja")
    for folder, place in PACKAGE.items():
        shutil.copytree(
            ROOT / folder, target / place, ignore=only_python, dirs_exist_ok=True, symlinks=True
        )


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages that stand beside docs/."""
    for source, name in BESIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The same page with links that hold in the site, and with text inside of ``<details>``."""
    uri = page.file.src_uri
    base = PurePosixPath("." if uri in BESIDE.values() else PurePosixPath("docs", uri).parent)

    def linked(match: re.Match[str]) -> str:
        text, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or "://" in path:
            return match[0]
        target = _normal(base / path)
        if target in BESIDE:
            target = f"docs/{BESIDE[target]}"
        if not target.startswith("docs/"):
            return text  # a file of the repository, which the site does not hold
        return f"[{text}]({_up(page)}{target.removeprefix('docs/')}{'#' * bool(anchor)}{anchor})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(linked, part) for part in parts[::2]]
    return "".join(parts).replace("<details>", '<details markdown="1">')


def _up(page: Page) -> str:
    return "../" * page.file.src_uri.count("/")


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in (".", ".."):
            parts.append(part)
    return "/".join(parts)




def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """With our own way to search from the disk: the theme's comes from the network."""
    return output.replace(_SHIM, f"{_up(page)}site.js")


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of addresses that do not exist."""
    return output_content.replace(_SHIM, "/site.js")
