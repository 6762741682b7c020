"""``attnc check``: property-based testing of one function from the command line."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from attnc.cli.console import is_terminal, write
from attnc.cli.options import of_user_code, require_choice
from attnc.cli.target import load_target
from attnc.errors import CheckFailedError, OptionValueError
from attnc.mods import Mod, mod_kind, require_kind
from attnc.trace.location import call_mod


def run(
    target: str | None,
    expression: str | None,
    expected: str | None,
    examples: int,
    backend: str | None,
) -> int:
    """Checks the function and prints what was found: 0, or 1 with a counterexample."""
    if backend is not None:
        require_choice("--backend", backend, ("cpu", "triton"))
    mod = load_target(target, expression)
    wanted = None if expected is None else _expected(expected, mod)
    # Imported late: hypothesis takes half a second, and is not needed to report a wrong target.
    try:
        from attnc.testing import check
        from attnc.testing.checking import available_backends
    except ModuleNotFoundError as error:
        problem = "hypothesis is not installed. Run `pip install hypothesis`."
        raise OptionValueError(option="check", value=target or "--expr", problem=problem) from error
    here = available_backends()
    if backend is not None and backend not in here:
        wants = "a C++ compiler" if backend == "cpu" else "TRITON_INTERPRET=1 in the environment"
        problem = f"it needs {wants}."
        raise OptionValueError(option="--backend", value=backend, problem=problem)
    backends = here if backend is None else (backend,)
    with _status(f"checking on {examples} random inputs"):
        try:
            report = of_user_code(
                target or "--expr",
                lambda: check(mod, expected=wanted, examples=examples, backends=backends),
            )
        except CheckFailedError as error:
            failure = str(error)
        else:
            failure = ""
    if failure:
        write(failure.rstrip())
        return 1
    write(str(replace(report, name=target or "--expr")))
    return 0


def _expected(target: str, mod: Mod) -> Mod:
    """The second function, whose errors are reported under its own name."""
    wanted = load_target(target, None)
    require_kind(wanted, mod_kind(mod), "--expected")
    return lambda *args: of_user_code(target, lambda: call_mod(wanted, args))


def _status(text: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal, nothing elsewhere."""
    if not is_terminal():
        return nullcontext()
    from rich.console import Console

    return Console().status(text)
