"""``attnc prove``: properties of a mask, for people and for CI."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnc.cli.console import is_terminal, write
from attnc.cli.options import of_user_code
from attnc.cli.target import load_target
from attnc.errors import OptionValueError

if TYPE_CHECKING:
    from attnc.prove import Proof

#: Exit codes, beside 2 for a mistake in what was typed.
ALL_HOLD, REFUTED, UNDECIDED = 0, 1, 3

_WORDS = {True: ("holds", "green"), False: ("refuted", "red"), None: ("undecided", "yellow")}


@dataclass(frozen=True)
class Wanted:
    """A property to prove; ``other`` is the mask that it is compared with, as typed."""

    name: str
    other: str | None = None

    def __str__(self) -> str:
        option = self.name.replace("_", "-")
        return option if self.other is None else f"{option} {self.other}"


@dataclass(frozen=True)
class Answer:
    """What was found, and the time that it took, in seconds."""

    wanted: Wanted
    proof: Proof
    seconds: float


def run(
    target: str | None,
    expression: str | None,
    properties: Iterable[Wanted],
    sizes: dict[str, int],
    as_json: bool,
) -> int:
    """Proves each property and prints what was found.

    Args:
        target: The function, as typed.
        expression: A lambda in its place.
        properties: What to prove, in order.
        sizes: ``B, H, Q_LEN, KV_LEN`` and ``budget``; those left out have their defaults.
        as_json: Print one JSON object.

    Returns:
        The exit code: ALL_HOLD; REFUTED if any is; UNDECIDED if any is and none is refuted.
    """
    wanted = list(properties)
    name = target or "--expr"
    if not wanted:
        problem = "name what to prove, as in --causal --rows-nonempty; see `attnc prove --help`."
        raise OptionValueError(option="prove", value=name, problem=problem)
    mod = load_target(target, expression)
    others = {w.other: load_target(w.other, None) for w in wanted if w.other is not None}
    answers = []
    for each in wanted:
        answers.append(_answer(each, name, mod, others, sizes))
        if not as_json:
            _write_answer(answers[-1], max(len(str(w)) for w in wanted))
    if as_json:
        write(json.dumps({"target": name, "properties": [_fields(a) for a in answers]}, indent=2))
    found = {answer.proof.holds for answer in answers}
    if False in found:
        return REFUTED
    return UNDECIDED if None in found else ALL_HOLD


def _answer(
    wanted: Wanted,
    name: str,
    mod: Callable[..., Any],
    others: dict[str, Callable[..., Any]],
    sizes: dict[str, int],
) -> Answer:
    from attnc import prove

    masks = [mod] if wanted.other is None else [mod, others[wanted.other]]
    place = name if wanted.other is None else f"{name} or {wanted.other}"
    started = time.perf_counter()
    proof = of_user_code(place, lambda: getattr(prove, wanted.name)(*masks, **sizes))
    return Answer(wanted, proof, time.perf_counter() - started)


def _write_answer(answer: Answer, width: int) -> None:
    proof = answer.proof
    word, colour = _WORDS[proof.holds]
    heading = f"{answer.wanted!s:<{width}}  "
    taken = f"  {proof.method} ({1e3 * answer.seconds:.1f} ms)"
    _, *details = str(proof).splitlines()
    if not is_terminal():
        write("\n".join([f"{heading}{word:<9}{taken}", *details]))
        return
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(heading, (f"{word:<9}", f"bold {colour}"), (taken, "dim"))
    Console(soft_wrap=True, highlight=False).print(line, *map(Text, details), sep="\n")


def _fields(answer: Answer) -> dict[str, Any]:
    proof, place = answer.proof, answer.proof.location
    return {
        "property": answer.wanted.name,
        "other": answer.wanted.other,
        "holds": proof.holds,
        "counterexample": proof.counterexample,
        "method": proof.method,
        "max_length": proof.max_length,
        "detail": proof.detail,
        "file": place and place.file,
        "line": place and place.line,
        "source": place and place.source,
        "seconds": answer.seconds,
    }
