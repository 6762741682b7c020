"""The base of all errors."""

from __future__ import annotations

from typing import Any, ClassVar


class AttncError(Exception):
    """Base of all errors that attnc raises for wrong input.

    Subclasses give ``template``; keyword arguments fill it and stay readable as ``fields``.
    """

    template: ClassVar[str] = "{message}"

    def __init__(self, **fields: Any) -> None:
        # What fills the end may be empty, as the output of a compiler that says nothing.
        super().__init__(self.template.format(**fields).rstrip())
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross processes: a pool of workers sends them back by pickle.
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[AttncError], fields: dict[str, Any]) -> AttncError:
    return cls(**fields)
