"""The base of all errors."""

from __future__ import annotations

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


class AttncError(Exception):
    """Base of all errors that attnc raises for wrong input.

    Subclasses give ``template``; keyword arguments fill it and stay readable as ``fields``.
    """

    template: ClassVar[str] = "{message}"

    def __init__(self, **fields: Any) -> None:
        # What fills the end may be empty, as the output of a compiler that says nothing.
        super().__init__(visible(self.template.format(**fields).rstrip()))
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross processes: a pool of workers sends them back by pickle.
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[AttncError], fields: dict[str, Any]) -> AttncError:
    return cls(**fields)
