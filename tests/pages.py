"""Code blocks of pages in Markdown, and what is to happen when a reader types them in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)

#: Commands that no test types, by pattern, with the reason.
SKIPPED = {
    r"make \w+.*": "a target of the Makefile: .ci/run calls those that check something",
    r"\.ci/run": "it calls these tests",
    r"pip install .*": "changes the environment that the tests run in",
    r"attnc demo": "embeds hundreds of sentences: `make demo` in .ci/run",
}

#: Commands that build and time kernels of their own: run with the slow tests.
SLOW = (
    r"attnc doctor.*",
    r"attnc inspect .* --html report.html",
    r"attnc inspect .* --stage resources .*",
    r"attnc check .*",
    r"attnc bench .*",
    r"python examples/.*",
)
#: The same of whole pages.
SLOW_PAGES = frozenset({ROOT / "docs" / "testing.md"})

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[\w+-]*)(?P<options>[^\n`]*)\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
#: Python that a page needs and no reader: a model's folder, shorter lengths.
_HIDDEN = re.compile(r"^<!-- python\n(?P<text>.*?)^-->$", re.MULTILINE | re.DOTALL)
LANGUAGES = frozenset({"python", "pycon", "console", "bash", "text"})


@dataclass(frozen=True)
class Step:
    """One thing to do: run Python or a command, or write a file.

    ``name`` is that of the file, ``expected`` what is printed or None where the page does not say
    (``is_about``: numbers may be off), ``line`` where it stands on the page.
    """

    kind: Literal["python", "pycon", "command", "file"]
    text: str
    line: int
    name: str = ""
    expected: str | None = None
    is_about: bool = False


@dataclass(frozen=True)
class Block:
    """A fenced block; hidden ones have the language "python"."""

    language: str
    options: str
    text: str
    start: int
    stop: int
    line: int
    is_hidden: bool = False

    @property
    def title(self) -> str:
        found = re.search(r'title="([^"]*)"', self.options)
        return found[1] if found else ""


def blocks_of(page: Path) -> list[Block]:
    """All fenced and hidden blocks, in order."""
    return list(_blocks(page.read_text()))


def _blocks(text: str) -> Iterator[Block]:
    found = [*_FENCE.finditer(text), *_HIDDEN.finditer(text)]
    for match in sorted(found, key=re.Match.start):
        groups = match.groupdict()
        line = text.count("\n", 0, match.start("text")) + 1
        indent = groups.get("indent", "")
        body = re.sub(rf"^{indent}", "", groups["text"], flags=re.MULTILINE)
        language, options = groups.get("language", "python"), groups.get("options", "")
        is_hidden = match.re is _HIDDEN
        yield Block(language, options, body, match.start(), match.end(), line, is_hidden)


def steps_of(page: Path, *, with_slow: bool = True) -> list[Step]:
    """What a reader would do, in order; skipped commands are left out.

    Args:
        page: The file.
        with_slow: Whether ``SLOW`` commands and ``SLOW_PAGES`` are among them.

    Raises:
        ValueError: A block is in a language that nothing here can run.
    """
    if page in SLOW_PAGES and not with_slow:
        return []
    text = page.read_text()
    blocks = list(_blocks(text))
    steps: list[Step] = []
    for i, block in enumerate(blocks):
        after = blocks[i + 1] if i + 1 < len(blocks) else None
        is_next = after is not None and not text[block.stop : after.start].strip()
        match block.language:
            case "python" if block.title:
                steps.append(Step("file", block.text, block.line, block.title))
            case "python":
                title = after.title if is_next and after is not None else ""
                expected = after.text if title.startswith("prints") and after else None
                is_about = title == "prints, about"
                steps.append(
                    Step("python", block.text, block.line, "", expected, is_about=is_about)
                )
            case "pycon":
                steps.append(Step("pycon", block.text, block.line))
            case "bash" | "console":
                left_out = SKIPPED if with_slow else (*SKIPPED, *SLOW)
                steps += (step for step in _commands(block) if not fits(step.text, *left_out))
            case "text":
                pass
            case other:
                raise ValueError(f"{page}:{block.line}: a block in {other!r}")
    return steps


def commands_of(page: Path) -> list[str]:
    """All commands, those that are skipped too."""
    blocks = (block for block in blocks_of(page) if block.language in ("bash", "console"))
    return [step.text for block in blocks for step in _commands(block)]


def fits(command: str, *patterns: str) -> bool:
    """Whether it is one of these, its comment aside."""
    bare = shlex.join(shlex.split(command, comments=True))
    return any(re.fullmatch(pattern, bare) for pattern in patterns)


def _commands(block: Block) -> list[Step]:
    lines = block.text.splitlines()
    if block.language == "bash":
        return [
            Step("command", line, block.line + i)
            for i, line in enumerate(lines)
            if line.strip() and not line.startswith("#")
        ]
    steps: list[Step] = []
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        output = "\n".join(lines[start + 1 : stop]).strip("\n")
        text = lines[start].removeprefix("$ ")
        steps.append(Step("command", text, block.line + start, expected=output or None))
    return steps
