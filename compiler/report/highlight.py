"""Source text as HTML with syntax colours: spans with one of a few classes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markupsafe import Markup, escape
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from attnc.stages import Language
from attnc.stages.stage import LEXERS

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
    # Unprocessed: else the lexer drops empty lines at the ends and changes line breaks.
    tokens = get_lexer_by_name(LEXERS[language]).get_tokens_unprocessed(text)
    parts = []
    for name, group in groupby(tokens, lambda token: _class_of(token[1])):
        shown = escape("".join(value for _, _, value in group))
        is_plain = name is None or not shown.strip()
        parts.append(
            shown if is_plain else Markup('<span class="{}">{}</span>').format(name, shown)
        )
    return Markup("").join(parts)


def _class_of(kind: Any) -> str | None:
    return next((name for token, name in _CLASSES if kind in token), None)
