"""Source text as HTML with syntax colours: spans with one of a few classes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markupsafe import Markup, escape
from pygments import lex
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from attnc.stages import Language

_LEXERS = {"python": "python", "cpp": "cpp", "asm": "nasm", "mlir": "llvm"}
_CLASSES = (
    (Comment, "c"),
    (Keyword, "k"),
    (Operator.Word, "k"),
    (String, "s"),
    (Number, "m"),
    (Name.Function, "f"),
    (Name.Class, "f"),
    (Name.Decorator, "d"),
    (Name.Builtin, "b"),
)
#: Text beyond is left without colours: assembly of large kernels would fill the page with spans.
MAX_COLOURED = 100_000


def highlighted(text: str, language: Language) -> Markup:
    """HTML of ``text``, escaped."""
    if language == "text" or len(text) > MAX_COLOURED:
        return escape(text)
    # The lexer ends its text with a line break and drops empty lines otherwise.
    lexer = get_lexer_by_name(_LEXERS[language], stripnl=False, ensurenl=False)
    parts = []
    for name, group in groupby(lex(text, lexer), lambda token: _class_of(token[0])):
        shown = escape("".join(value for _, value in group))
        is_plain = name is None or not shown.strip()
        parts.append(
            shown if is_plain else Markup('<span class="{}">{}</span>').format(name, shown)
        )
    return Markup("").join(parts)


def _class_of(kind: Any) -> str | None:
    return next((name for token, name in _CLASSES if kind in token), None)
