"""What the reference shows beyond the text of docstrings, as an extension of griffe."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Class, Docstring, Extension, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)


class Docstrings(Extension):
    """Examples as code, ``#:`` above a constant, and the message of an error that says no more."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(
                lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value
            )

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        template = cls.members.get("template")
        if cls.docstring is None and template is not None:
            message = ast.literal_eval(str(template.value))
            cls.docstring = Docstring(f"```text\n{message}\n```", parent=cls)

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        if attr.docstring is not None or attr.lineno is None or attr.parent is None:
            return
        above = []
        for line in reversed(attr.lines_collection[attr.filepath][: attr.lineno - 1]):
            if not line.startswith("#:"):
                break
            above.append(line.removeprefix("#:").strip())
        if above:
            attr.docstring = Docstring(" ".join(reversed(above)), parent=attr)
