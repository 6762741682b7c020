"""The laws that ``check`` examines, a module per family; ``LAWS`` has them in order.

A new law is a generator of failures over a ``Case``, entered with ``@law`` into the module of its
family; a module that is new is named in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from attnc.errors import LawNameError
from attnc.testing.case import Case
from attnc.testing.laws.registry import LAWS, Failure, Law, law, law_of

__all__ = ["FAMILIES", "LAWS", "Failure", "Law", "chosen_laws", "law", "law_of"]

#: In the order in which their laws are examined.
FAMILIES = ("function", "properties", "tiles", "forward", "backward", "unseen")
for _family in FAMILIES:
    import_module(f"attnc.testing.laws.{_family}")
_RANKED = sorted(LAWS.values(), key=lambda each: FAMILIES.index(each.family))


def chosen_laws(
    laws: str | Sequence[str] | None,
    properties: str | Sequence[str | Callable[[Case], object]] = (),
) -> tuple[Law, ...]:
    """The laws to examine, in order; a user's own come last.

    Args:
        laws: Names, or one text of names with commas between; all that are no properties if None,
            none if empty. ``no-NAME`` leaves one out: of all, unless others are named.
        properties: Names of properties, and functions of a case.

    Raises:
        LawNameError: There is no such law.
    """
    names = _names(laws)
    left_out = {name.removeprefix("no-") for name in names if name.startswith("no-")}
    named = [name for name in names if not name.startswith("no-")]
    asked = _names(properties) if isinstance(properties, str) else list(properties)
    own = [each for each in asked if callable(each)]
    wanted = {each for each in asked if isinstance(each, str)}
    usual = [each.name for each in _RANKED if not each.is_property]
    for name in (*sorted(left_out), *named):
        _require(name, "laws", usual)
    for name in sorted(wanted):
        _require(name, "properties", [each.name for each in _RANKED if each.is_property])
    if laws is None or (names and not named):
        named = usual
    kept = ({*named} - left_out) | wanted
    return (*(each for each in _RANKED if each.name in kept), *map(law_of, own))


def _names(laws: str | Sequence[str] | None) -> list[str]:
    if laws is None:
        return []
    return [name.strip() for name in laws.split(",")] if isinstance(laws, str) else list(laws)


def _require(name: str, argument: str, known: Sequence[str]) -> None:
    if name not in known:
        raise LawNameError(argument=argument, name=name, known=", ".join(known))
