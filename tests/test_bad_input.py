"""Bad input: every argument of every public function refuses what it cannot use, in words.

A call either does what it says or raises an error of ``attnc``: nothing else comes out, and nothing
ends the process. Calls are texts that run in a child process, see ``bad_input.worker``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from bad_input import CALLS, Call
from bad_input.operators import HOSTILE
from bad_input.preamble import PREAMBLE
from bad_input.values import KNOWN, MODS, STRANGE
from bad_input.worker import Outcome, Worker

import attnc
from attnc.errors import FreedStorageError


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(PREAMBLE, seconds=60.0) as started:
        yield started


def is_accounted_for(outcome: Outcome) -> bool:
    """Whether an outcome is an answer or an error with a message, not one from the inside."""
    return outcome.kind == "done" or (outcome.kind == "attnc error" and bool(outcome.message))


def failures_of(call: Call, values: Sequence[str], worker: Worker) -> list[tuple[str, Outcome]]:
    """Programs with one of ``values`` in place of an argument that come to no answer and no error."""
    programs = [call.program(**{name: value}) for name in call.arguments for value in values]
    outcomes = [(program, worker.run(program)) for program in programs]
    return [(program, found) for program, found in outcomes if not is_accounted_for(found)]


def test_strange_values_are_refused_in_words(worker: Worker) -> None:
    """Whatever stands for an argument, an answer or an error of attnc comes out."""
    failures = []
    for number, call in enumerate(CALLS):
        outcome = worker.run(call.program())
        assert outcome.kind == "done", (call.name, outcome)  # only a right call shows a mistake
        failures += failures_of(call, STRANGE[number % 7 :: 7], worker)

    assert not failures


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=[call.name for call in CALLS])
def test_every_strange_value_is_refused_in_words(call: Call, worker: Worker) -> None:
    """As above, all values for all arguments."""
    assert not failures_of(call, STRANGE, worker)


@pytest.mark.parametrize(("call", "argument", "value", "error"), KNOWN)
def test_mistakes_have_their_class(
    call: str, argument: str, value: str, error: str, worker: Worker
) -> None:
    """The usual mistakes are told apart, and the message names the argument."""
    found = next(entry for entry in CALLS if entry.name == call)

    outcome = worker.run(found.program(**{argument: value}))

    assert (outcome.kind, outcome.what) == ("attnc error", error), outcome
    assert argument in outcome.message


@pytest.mark.parametrize("mod", MODS)
def test_mods_are_traced_or_refused(mod: str, worker: Worker) -> None:
    """What a function returns, takes or does in vain is told with its line."""
    outcome = worker.run(f"result = attended({mod})")

    assert is_accounted_for(outcome), outcome


@pytest.mark.parametrize("program", HOSTILE)
def test_the_operator_survives_what_it_is_given(program: str, worker: Worker) -> None:
    """Texts and tensors that no tracer made are refused before a kernel reads memory by them."""
    outcome = worker.run(f"result = {program}")

    assert outcome.kind == "attnc error", outcome


def test_errors_of_a_mod_come_through(worker: Worker) -> None:
    """What the user's function raises itself is the user's: it is not dressed up."""
    assert worker.run("attention(Q, K, V, mask=raising)").what == "ZeroDivisionError"
    assert worker.run("attention(Q, K, V, mask=recursing)").what == "RecursionError"


def test_captured_memory_that_was_cut_off_is_told() -> None:
    """Storage that ends before the elements do is not read; a tensor that was resized whole is."""
    q, bias = torch.randn(1, 1, 64, 16), torch.zeros(64)
    cut = torch.zeros(64)
    cut.untyped_storage().resize_(64)

    with pytest.raises(FreedStorageError, match="a captured tensor has the shape"):
        attnc.attention(q, q, q, score=lambda score, b, h, q_idx, kv_idx: score + cut[kv_idx])

    bias.resize_(128).zero_()
    out = attnc.attention(q, q, q, score=lambda score, b, h, q_idx, kv_idx: score + bias[kv_idx])
    torch.testing.assert_close(out, attnc.attention(q, q, q))
