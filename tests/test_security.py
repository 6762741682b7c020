"""Names and texts from outside do nothing but name and be refused. See ``docs/security.md``."""

from __future__ import annotations

import ast
import linecache
import os
import re
import types
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cpu_kernels import program_of, spec_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

import attnc
from attnc.errors import AttncError, BranchOnTracedValueError, ExpressionSyntaxError
from attnc.errors.base import visible
from attnc.ir import Expr
from attnc.parser import parse_expr
from attnc.printer import format_program
from attnc.runtime import cache
from attnc.runtime.cache import DiskCache
from attnc.stages import Inspection

MARK = "zZ9payload"
NASTY = (
    "*/ int zZ9payload; /*",
    '"""\nimport os; zZ9payload = 1\n"""',
    "'; zZ9payload; '",
    "\\\nzZ9payload",
    "{{ zZ9payload }}",
    "{% for zZ9payload in () %}",
    "??/\nzZ9payload",
    '#include "/etc/zZ9payload"',
    "\n#define float zZ9payload\n",
    "../../../zZ9payload",
    "\x1b]0;zZ9payload\x07\x1b[2J",
    "\u202ezZ9payload\u202c\u200b\ufeff",
    "zZ9payload\r\x08\x7f\x9b31m",
    'R"(zZ9payload)"',
    "{zZ9payload!r:>{width}}",
)
nasty_texts = st.sampled_from(NASTY) | st.text(max_size=30).map(lambda text: text + MARK)
TABLE = torch.arange(64, dtype=torch.int32)


def mods_named(name: str, file: str) -> tuple[Any, Any]:
    """A mask and a score that read a captured tensor, all of whose names are so, from such a file."""
    captured = TABLE

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any, near: int = 9) -> Any:
        return (captured[q_idx] == captured[kv_idx]) & (q_idx - kv_idx < near)

    def score(value: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.tanh(value / 20) * 20 + captured[q_idx]

    return renamed(mask, name, file), renamed(score, name, file)


def renamed(fn: Callable[..., Any], name: str, file: str) -> Callable[..., Any]:
    clean = name.replace("\0", "")  # CPython takes none in names
    plain = fn.__code__
    code = plain.replace(
        co_name=clean,
        co_qualname=clean,
        co_filename=file,
        co_varnames=tuple(f"{clean}{number}" for number in range(len(plain.co_varnames))),
        co_freevars=tuple(clean for _ in plain.co_freevars),
    )
    # Every line of that file is hostile too: tracing looks them up.
    linecache.cache[file] = (1, None, [f"{name} # {name}\n"] * 500, file)
    made = types.FunctionType(code, {}, clean, fn.__defaults__, fn.__closure__)
    made.__globals__.update(torch=torch, __name__=clean)
    made.__qualname__, made.__module__, made.__doc__ = clean, clean, name
    return made


@given(nasty_texts, nasty_texts)
def test_no_name_reaches_what_is_generated(name: str, file: str) -> None:
    """What is asked of a kernel, and so its source, its plan and its place, knows no name at all."""
    plain, nasty = (
        spec_of(program_of(*mods_named(*names))) for names in (("f", "f.py"), (name, file))
    )
    assert nasty == plain
    assert nasty.digest() == plain.digest()
    assert MARK not in repr(nasty)


@pytest.mark.parametrize("target", ["cpu", "triton"])
@given(name=nasty_texts, file=nasty_texts)
@settings(max_examples=8)
def test_the_source_that_is_shown_is_that_of_plain_names(target: str, name: str, file: str) -> None:
    """Functions, parameters, captured variables, modules and files, in code and in comments."""
    plain, nasty = (
        attnc.kernel(score=score)(mask).source(target)
        for mask, score in (mods_named("f", "f.py"), mods_named(name, file))
    )
    assert nasty == plain


@given(nasty_texts, nasty_texts)
def test_messages_do_not_move_the_cursor(name: str, file: str) -> None:
    """Names of functions and files, and lines of source, are shown with escapes."""

    def branches(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return 1 if q_idx else 0

    mod = renamed(branches, name, file)
    q = torch.ones(1, 1, 4, 8)
    with pytest.raises(BranchOnTracedValueError) as caught:
        attnc.attention(q, q, q, mask=mod)
    kinds = {unicodedata.category(letter) for letter in str(caught.value) if letter not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_reports_do_not_move_the_cursor() -> None:
    """Nor do the stages that quote the source, and the repr of a kernel."""
    name = "".join(NASTY).replace("\n", "")
    mask, score = mods_named(name, name)
    kernel = attnc.kernel(score=score)(mask)
    stages = Inspection.of(kernel)
    for text in (repr(kernel), kernel.explain(), kernel.ir, stages.traced()):
        assert not {unicodedata.category(letter) for letter in text if letter != "\n"} & {
            "Cc",
            "Cf",
        }


@given(st.text())
@example("\x1b[2J\u202e\u200b\x00\x9b\ud800")
def test_what_is_shown_can_be_seen(text: str) -> None:
    """Control characters and invisible marks are escaped, nothing else changes, and once is enough."""
    shown = visible(text)
    assert visible(shown) == shown
    assert not set(shown) & {
        *map(chr, range(9)),
        "\x0b",
        "\x1b",
        "\x7f",
        "\x9b",
        "\u200b",
        "\u202e",
    }
    if text.isprintable():
        assert shown == text
    shown.encode()


def test_only_these_modules_run_text() -> None:
    """None of them reads what it runs from a file that is not checked; nothing is unpickled."""
    runs = set()
    package = Path(attnc.__path__[0])
    for folder in (package, Path(cache.__file__).parent):
        for file in folder.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if not re.search(r"eval|exec|__import__|pickle|marshal|shelve|dill", text):
                continue  # reading takes time
            tree = ast.parse(text)
            for node in ast.walk(tree):
                match node:
                    case ast.Call(ast.Name("eval" | "exec" | "__import__" as name)):
                        runs.add((f"{file.parent.name}/{file.name}", name))
                    case ast.Import([*names]) if {n.name.split(".")[0] for n in names} & {
                        "pickle", "marshal", "shelve", "dill"
                    }:  # fmt: skip
                        runs.add((f"{file.parent.name}/{file.name}", "pickle"))
                    case ast.ImportFrom("pickle" | "marshal" | "shelve" | "dill"):
                        runs.add((f"{file.parent.name}/{file.name}", "pickle"))
    assert runs <= {
        ("library/entry.py", "eval"),  # examples of the library itself
        ("cli/target.py", "eval"),  # --expr, which the user writes
        ("testing/recipes.py", "eval"),  # functions that the toolkit draws
        ("runtime/triton.py", "exec"),  # a verified entry of the cache
        ("runtime/triton_worker.py", "exec"),  # what has just been rendered
    } | {(place, "eval") for place, _ in runs if place.startswith("cli/")}, runs


def built_by(text: str, calls: list[str]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        calls.append(text)
        (folder / "binary").write_text(text)

    return build


def spoil_by_link(binary: Path, aside: Path) -> None:
    binary.rename(aside)
    binary.symlink_to(aside)


def spoil_by_pipe(binary: Path, aside: Path) -> None:
    binary.unlink()
    os.mkfifo(binary)


def spoil_by_folder(binary: Path, aside: Path) -> None:
    binary.unlink()
    binary.mkdir()


def spoil_by_linked_entry(binary: Path, aside: Path) -> None:
    binary.parent.rename(aside)
    binary.parent.symlink_to(aside)


def spoil_by_mode(binary: Path, aside: Path) -> None:
    binary.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil", [spoil_by_link, spoil_by_pipe, spoil_by_folder, spoil_by_linked_entry, spoil_by_mode]
)
def test_an_entry_is_plain_files_in_a_private_folder(
    tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    """Links, pipes and folders others can write to are replaced, even where the content is right."""
    root, digest, calls = tmp_path / "cache", "a" * 64, []
    DiskCache(root).fetch(digest, built_by("first", calls))
    spoil(root / digest / "binary", tmp_path / "aside")

    entry = DiskCache(root).fetch(digest, built_by("second", calls))

    assert calls == ["first", "second"]
    assert (entry.folder / "binary").read_text() == "second"
    assert not entry.folder.is_symlink()


def test_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """While an entry is built and afterwards."""
    modes = []

    def build(folder: Path) -> None:
        modes.append(folder.stat().st_mode & 0o777)
        (folder / "binary").write_text("")

    before = os.umask(0)
    try:
        entry = DiskCache(tmp_path / "a" / "cache").fetch("a" * 64, build)
    finally:
        os.umask(before)
    folders = [entry.folder, tmp_path / "a" / "cache", tmp_path / "a" / "cache" / ".locks"]
    assert modes + [f.stat().st_mode & 0o777 for f in folders] == [0o700] * 4


PROGRAM = format_program(
    program_of(*mods_named("f", "f.py")).lifted.exprs[1]  # type: ignore[arg-type]
)
_words = st.sampled_from(
    [*PROGRAM.split(), "(", ")", "[", "]", "-", "~", "**", "<<", "lambda", "for r0 in range(3)",
     "sum(", "where(", "p0", "t0", "t9[", "0x", "9" * 400, "1e999", "'", '"', "\\", "\n", "  ", "\0",
     "\ud800", "__import__('os')", "x0 = ", ": float32", "f'{", "}'", "é", ":=", "@"]
)  # fmt: skip


@given(st.text() | st.lists(_words, max_size=40).map(" ".join) | st.lists(_words).map("".join))
@settings(max_examples=300)
@example("q_idx >= \ud800")
@example("q_idx >= 0x" + "f" * 50_000)
@example("1" + "0" * 400 + " > score")
@example("p" + "9" * 5000 + ": int32\n1")
@example("+".join(["q_idx"] * 900) + "+zzz")
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """Exported programs bring texts: nothing in them is run, and nothing but our error is raised."""
    try:
        expr = parse_expr(text)
    except ExpressionSyntaxError:
        return
    assert isinstance(expr, Expr)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000, "a" + ".a" * 20_000, "a" + "()" * 20_000, "a" + "[0]" * 20_000,
        "not " * 20_000 + "a", "a if a else " * 20_000 + "a", "lambda:" * 20_000 + "a",
        "-" * 20_000 + "q_idx", "+".join(["q_idx"] * 20_000), "a<" * 20_000 + "a",
        "**".join(["q_idx"] * 20_000), "q_idx" + " " * (1 << 22), "f'{" * 200,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_deep_and_long_texts_are_refused_in_time(text: str) -> None:
    """They neither overflow a stack nor take more than moments."""
    with pytest.raises(ExpressionSyntaxError):
        parse_expr(text)


def test_a_text_that_doubles_stays_small() -> None:
    """Shared nodes are one: 300 doublings are 300 nodes, also written out again."""
    lines = ["x0 = q_idx + q_idx", *(f"x{n + 1} = x{n} + x{n}" for n in range(300)), "x300 > 1"]
    expr = parse_expr("\n".join(lines))
    assert len(format_program(expr)) < 20_000


def test_nothing_in_a_text_is_run(tmp_path: Path) -> None:
    """However it is wrapped."""
    target = tmp_path / "made"
    call = f"__import__('pathlib').Path({str(target)!r}).touch()"
    for text in (call, f"x0 = {call}\nx0", f"sum({call} for r0 in range(2))", f"[{call}][0]",
                 f"f'{{{call}}}'", f"where({call}, 1, 2)", f"(lambda: {call})()", f"@{call}\n1"):  # fmt: skip
        with pytest.raises(ExpressionSyntaxError):
            parse_expr(text)
    assert not target.exists()


def test_errors_keep_their_facts_as_they_are() -> None:
    """Only the message has escapes."""
    error = ExpressionSyntaxError(text="\x1b[2J", problem="x")
    assert "\\x1b[2J" in str(error)
    assert error.fields["text"] == "\x1b[2J"
    assert isinstance(error, AttncError)
