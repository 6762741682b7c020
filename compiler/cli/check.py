"""``attnc check``: property-based testing of one function from the command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attnc.checks import DTYPES
from attnc.cli.console import is_terminal, write
from attnc.cli.options import of_user_code, require_choice
from attnc.cli.target import load_target
from attnc.errors import CheckFailedError, LawNameError, OptionValueError
from attnc.mods import Mod, mod_kind, require_kind
from attnc.trace.location import call_mod

if TYPE_CHECKING:
    from attnc.testing import CheckReport


@dataclass(frozen=True)
class Options:
    """What was typed; ``laws``, ``properties`` and ``dtypes`` have commas between names."""

    expected: str | None = None
    examples: int = 25
    backend: str | None = None
    laws: str | None = None
    properties: str | None = None
    dtypes: str = "float32"
    gradients: bool = True
    seed: int | None = None


def run(target: str | None, expression: str | None, options: Options) -> int:
    """Checks the function and prints what was found: 0, or 1 with a counterexample."""
    if options.backend is not None:
        require_choice("--backend", options.backend, ("cpu", "triton"))
    dtypes = [name.strip() for name in options.dtypes.split(",")]
    for dtype in dtypes:
        require_choice("--dtypes", dtype, DTYPES)
    mod = load_target(target, expression)
    expected = options.expected
    wanted = None if expected is None else _expected(expected, mod)
    # Imported late: hypothesis takes half a second, and is not needed to report a wrong target.
    try:
        from attnc.testing import check
        from attnc.testing.laws import chosen_laws
    except ModuleNotFoundError as error:
        problem = "hypothesis is not installed. Run `pip install hypothesis`."
        raise OptionValueError(option="check", value=target or "--expr", problem=problem) from error
    properties = () if options.properties is None else options.properties
    try:
        chosen_laws(options.laws, properties)
    except LawNameError as error:
        option, known = f"--{error.fields['argument']}", error.fields["known"]
        problem = f"use one of {known}."
        raise OptionValueError(
            option=option, value=error.fields["name"], problem=problem
        ) from error
    name = target or "--expr"
    with _status(f"checking on {options.examples} random inputs"):
        found, failure = _outcome(
            name,
            lambda: check(
                mod,
                expected=wanted,
                laws=options.laws,
                properties=properties,
                examples=options.examples,
                backends=_backends(options.backend),
                dtypes=dtypes,
                gradients=options.gradients,
                seed=options.seed,
            ),
        )
    if failure:
        write(f"{failure.rstrip()}\n")
    write(f"{replace(found, name=name)}\n{found.table()}")
    return 1 if failure else 0


def _outcome(name: str, checked: Callable[[], CheckReport]) -> tuple[CheckReport, str]:
    """What was examined, and what was found, if anything."""
    try:
        return of_user_code(name, checked), ""
    except CheckFailedError as error:
        return error.fields["report"], str(error)


def _backends(asked: str | None) -> tuple[str, ...]:
    from attnc.testing.backends import available_backends, what_is_missing

    here = available_backends()
    if asked is None:
        return here
    if asked not in here:
        problem = f"it needs {what_is_missing(asked)}."
        raise OptionValueError(option="--backend", value=asked, problem=problem)
    return (asked,)


def _expected(target: str, mod: Mod) -> Mod:
    """The second function, whose errors are reported under its own name."""
    wanted = load_target(target, None)
    require_kind(wanted, mod_kind(mod), "--expected")

    def expected(*args: Any) -> Any:
        return of_user_code(target, lambda: call_mod(wanted, args))

    # What is printed to reproduce a failure names the function itself.
    expected.__wrapped__ = wanted  # type: ignore[attr-defined]
    return expected


def _status(text: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal, nothing elsewhere."""
    if not is_terminal():
        return nullcontext()
    from rich.console import Console

    return Console().status(text)
