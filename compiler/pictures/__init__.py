"""Pictures of masks and scores: as text, PNG and HTML."""

from attnc.pictures.drawing import Content, Curve, Drawing, Heat, Pairs, Tiles, content_of
from attnc.pictures.html import html_page, svg_of
from attnc.pictures.png import png_bytes
from attnc.pictures.text import distinct, plain, text_lines

__all__ = [
    "Content",
    "Curve",
    "Drawing",
    "Heat",
    "Pairs",
    "Tiles",
    "content_of",
    "distinct",
    "html_page",
    "plain",
    "png_bytes",
    "svg_of",
    "text_lines",
]
