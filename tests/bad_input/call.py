"""A call as text, with a place for each argument, and a right value for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: ``<q:Q>`` is a place called q with the right value Q; ``q=<Q>`` one that a keyword names.
_PLACE = re.compile(r"(?:(?P<keyword>\w+)=)?<(?:(?P<name>\w+):)?(?P<value>.*?)>")


@dataclass(frozen=True)
class Call:
    """A call with a place for each argument, and a right value for each."""

    name: str
    template: str
    arguments: Mapping[str, str]

    @classmethod
    def of(cls, name: str, text: str) -> Call:
        """The call that ``text`` shows, as in ``attention(<q:Q>, k=<K>)``."""
        arguments = {}

        def place(found: re.Match[str]) -> str:
            keyword, given, value = found.group("keyword", "name", "value")
            argument = given or keyword
            arguments[argument] = value
            return f"{keyword}={{{argument}}}" if keyword else f"{{{argument}}}"

        return cls(name, _PLACE.sub(place, text), arguments)

    def program(self, **instead: str) -> str:
        return "result = " + self.template.format(**{**self.arguments, **instead})
