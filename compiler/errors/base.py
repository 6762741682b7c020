"""The base of all errors."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any, ClassVar

# Of what cannot be seen: these stand for themselves in a message.
_PLAIN = frozenset("\n\t")


def visible(text: str) -> str:
    """``text`` with escapes for what a terminal would obey, or an eye not see.

    Names of files and functions, lines of source and the output of compilers get into messages:
    control characters among them could move the cursor, and marks of direction reorder a line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter
        if letter in _PLAIN or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


_MAX_BITS = 1000  # of a number that is written out; Python refuses some thousands of digits


class AttncError(Exception):
    """Base of all errors that attnc raises for wrong input.

    Subclasses give ``template``; keyword arguments fill it and stay readable as ``fields``.
    """

    template: ClassVar[str] = "{message}"

    def __init__(self, **fields: Any) -> None:
        if "torch" in sys.modules:  # the command line fails without it, which takes a second
            from attnc.errors.in_graph import break_graph

            break_graph(self.template, fields)
        self.fields = {name: described(value) for name, value in fields.items()}
        # What fills the end may be empty, as the output of a compiler that says nothing.
        super().__init__(visible(self.template.format(**self.fields).rstrip()))

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross processes: a pool of workers sends them back by pickle.
        return (_rebuild, (type(self), self.fields))


class Words(str):
    """Says what a value is, where its repr would be long, would fail or would not be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def described(value: Any) -> Any:
    """``value``, or ``Words`` for it if it may stand for a mistake that says more than a line."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return Words(f"an int of {value.bit_length()} bits")
    if type(value) in (list, tuple):
        return type(value)(described(item) for item in value)
    if isinstance(value, (str, bytes, int, float, list, tuple, dict, type(None))):
        return value
    if hasattr(value, "dtype") and hasattr(value, "__array__"):
        return Words(f"{str(value.dtype).removeprefix('torch.')}{_shape(value)}")
    if callable(value) and not isinstance(value, type):
        return Words(getattr(value, "__qualname__", "") or f"a {type(value).__name__}")
    return value


def _shape(value: Any) -> list[Any] | str:
    try:
        return list(value.shape)
    except (RuntimeError, AttributeError):  # a nested tensor has none
        return " that is nested"


def _rebuild(cls: type[AttncError], fields: dict[str, Any]) -> AttncError:
    return cls(**fields)
