"""Several generated Triton modules in one file: names that would clash are made different."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """Definitions of a module, and what its own names are called in the file."""

    text: str
    names: Mapping[str, str]


def joined(modules: Sequence[tuple[str, str]]) -> list[Section]:
    """A section for each module, to follow each other in one file.

    What a later module defines as an earlier one is left out; what it defines otherwise gets the
    module's prefix.

    Args:
        modules: Prefix of names, and source, of each module. Imports and its docstring are left
            out.
    """
    known: dict[str, str] = {}  # definitions so far, by name
    sections = []
    for prefix, source in modules:
        names: dict[str, str] = {}
        texts = []
        for name, text in _definitions(source):
            read = _names_in(text) - {name}
            is_same = known.get(name) == text and all(names.get(n, n) == n for n in read)
            names[name] = name if is_same or name not in known else _prefixed(prefix, name)
            if not is_same:
                texts.append(_renamed(text, names))
                known[names[name]] = text
        sections.append(Section(_spaced(texts), names))
    return sections


def _definitions(source: str) -> list[tuple[str, str]]:
    """Name and text of every assignment and function of a module, in order."""
    lines = source.splitlines(keepends=True)
    found = []
    for node in ast.parse(source).body:
        first = node.lineno
        match node:
            case ast.FunctionDef(name=name, decorator_list=decorators):
                first = min([first, *(decorator.lineno for decorator in decorators)])
            case ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case _:
                continue
        assert node.end_lineno is not None
        found.append((name, "".join(lines[first - 1 : node.end_lineno]).rstrip()))
    return found


def _prefixed(prefix: str, name: str) -> str:
    return f"{prefix.upper()}_{name}" if name.isupper() else f"{prefix}_{name}"


def _names_in(text: str) -> set[str]:
    return {token.string for token, _ in _name_tokens(text)}


def _name_tokens(text: str) -> list[tuple[tokenize.TokenInfo, int]]:
    """Names in a text that may be of the module: no attributes, no keywords of calls."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    found, depth = [], 0
    for before, token, after in zip(
        [tokens[0], *tokens], tokens, [*tokens[1:], tokens[-1]], strict=False
    ):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        if token.type != tokenize.NAME or before.string == ".":
            continue
        if depth and after.string == "=":
            continue
        found.append((token, depth))
    return found


def _renamed(text: str, names: Mapping[str, str]) -> str:
    lines = text.splitlines(keepends=True)
    for token, _ in reversed(_name_tokens(text)):
        new = names.get(token.string, token.string)
        row, column = token.start
        line = lines[row - 1]
        lines[row - 1] = line[:column] + new + line[column + len(token.string) :]
    return "".join(lines)


def _spaced(texts: Sequence[str]) -> str:
    """Assignments on lines that follow each other, two empty lines around functions."""
    out = ""
    was_function = False
    for text in texts:
        is_function = text.startswith(("def ", "@"))
        out += ("\n\n" if is_function or was_function else "") + text + "\n"
        was_function = is_function
    return out.strip("\n") + "\n"
