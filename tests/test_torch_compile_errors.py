"""Wrong mods inside of torch.compile are told in attnc's words, not in dynamo's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import attnc
from attnc import errors
from attnc.in_graph.operators import attention_op
from attnc.trace import traced

Q = torch.zeros(1, 2, 32, 16)
LIST = [1, 2, 3]
TABLE = torch.arange(32)


@pytest.fixture(autouse=True)
def _no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def message_of(error: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def two(a: Any, b: Any) -> Any:
    return a >= b


def nothing(b: Any, h: Any, q: Any, k: Any) -> None:
    pass


def distance(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q - k) * 0.5


def writes(b: Any, h: Any, q: Any, k: Any) -> Any:
    TABLE.add_(1)
    return TABLE[q] > k


def assigns(b: Any, h: Any, q: Any, k: Any) -> Any:
    TABLE[3] = 2
    return TABLE[q] > k


def number(b: Any, h: Any, q: Any, k: Any) -> Any:
    return float(q) > 3


WRONG: dict[str, tuple[dict[str, Any], type[errors.AttncError]]] = {
    "parameters": ({"mask": two}, errors.ModSignatureError),
    "kind": ({"score": distance}, errors.WrongModKindError),
    "no function": ({"mask": 3}, errors.NotAModError),
    "tensor": ({"mask": Q > 0}, errors.NotAModError),
    "float": ({"mask": distance}, errors.ModReturnError),
    "None": ({"mask": nothing}, errors.ModReturnError),
    "operation": (
        {"mask": lambda b, h, q, k: torch.fft.fft(q) > 0},
        errors.UnsupportedOperationError,
    ),
    "method": (
        {"score": lambda s, b, h, q, k: torch.cumsum(s, 0)},
        errors.UnsupportedOperationError,
    ),
    "random": (
        {"mask": lambda b, h, q, k: torch.rand(()) > 0.5},
        errors.UnsupportedOperationError,
    ),
    "indices": ({"mask": lambda b, h, q, k: Q[0, 0, 0, 0, q] > 0}, errors.TooManyIndicesError),
    "dtype": (
        {"mask": lambda b, h, q, k: Q.to(torch.complex64)[0, 0, q, k] == 0},
        errors.UnsupportedDTypeError,
    ),
    "write": ({"mask": writes}, errors.InPlaceOperationError),
    "assignment": ({"mask": assigns}, errors.InPlaceOperationError),
    "strict": ({"strict": 2}, errors.FlagError),
}


@pytest.mark.parametrize("name", WRONG)
def test_whole_graphs_say_what_eager_calls_say(name: str) -> None:
    """To the letter, the user's line among it."""
    options, error = WRONG[name]
    expected = message_of(error, lambda: attnc.attention(Q, Q, Q, **options))
    compiled = torch.compile(
        lambda q: attnc.attention(q, q, q, **options), backend="eager", fullgraph=True
    )

    assert expected in message_of(torch._dynamo.exc.Unsupported, lambda: compiled(Q))


@pytest.mark.parametrize("mask", [number, lambda b, h, q, k: LIST[q] > 0])
def test_values_are_known_only_inside_the_kernel(mask: Any) -> None:
    """dynamo asks a tensor for its item, whatever a mod wants it for."""
    eager = message_of(errors.ConcreteValueError, lambda: attnc.attention(Q, Q, Q, mask=mask))
    compiled = torch.compile(
        lambda q: attnc.attention(q, q, q, mask=mask), backend="eager", fullgraph=True
    )
    found = message_of(torch._dynamo.exc.Unsupported, lambda: compiled(Q))
    assert f"{eager.partition(' as a')[0]} as a Python number, but it is known only" in found


def test_mods_may_write_what_they_made() -> None:
    """Tensors that were made in the mod are its own."""

    def steps(b: Any, h: Any, q: Any, k: Any) -> Any:
        own = torch.zeros(32, dtype=torch.int64)
        own[3:] = 1
        own.add_(TABLE.clone().mul_(2))
        return own[q] >= k

    expected = attnc.attention(Q, Q, Q, mask=steps)
    compiled = torch.compile(
        lambda q: attnc.attention(q, q, q, mask=steps), backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(Q), expected)


def test_graphs_that_may_break_raise_the_error_itself() -> None:
    """The call is run as it stands."""
    compiled = torch.compile(lambda q: attnc.attention(q * 1, q, q, mask=distance), backend="eager")
    with pytest.raises(errors.ModReturnError, match="returned the float32 value"):
        compiled(Q)


def test_shapes_are_told() -> None:
    """Arguments are examined as in eager calls."""
    compiled = torch.compile(lambda q, k: attnc.attention(q, k, k), backend="eager", fullgraph=True)
    k = torch.zeros(1, 2, 32, 8)
    expected = message_of(errors.ShapeError, lambda: attnc.attention(Q, k, k))
    assert expected in message_of(torch._dynamo.exc.Unsupported, lambda: compiled(Q, k))


def test_branches_are_told_what_to_write_instead() -> None:
    """dynamo finds them itself, and shows a line of ours, the rest of which is our advice."""
    options: dict[str, Any] = {"mask": lambda b, h, q, k: 1 < q < k}
    eager = message_of(errors.BranchOnTracedValueError, lambda: attnc.attention(Q, Q, Q, **options))
    advice = re.search(r"Use (torch\.where.*)\.$", eager)
    compiled = torch.compile(
        lambda q: attnc.attention(q, q, q, **options), backend="eager", fullgraph=True
    )

    assert advice is not None
    found = message_of(torch._dynamo.exc.Unsupported, lambda: compiled(Q))
    assert f"known only inside the kernel: use {advice[1]}" in found


def test_mods_that_are_too_long_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In graphs too, and where a text is given to the operator."""
    for module in ("attnc.in_graph.attend", "attnc.in_graph.check", "attnc.trace.traced"):
        monkeypatch.setattr(f"{module}.MOST_NODES", 20)

    def terms(b: Any, h: Any, q: Any, k: Any) -> Any:
        found = q == k
        for number in range(20):
            found = found | (q - k == 3 * number)
        return found

    expected = message_of(errors.TooLongModError, lambda: attnc.attention(Q, Q, Q, mask=terms))
    compiled = torch.compile(
        lambda q: attnc.attention(q, q, q, mask=terms), backend="eager", fullgraph=True
    )
    found = message_of(torch._dynamo.exc.Unsupported, lambda: compiled(Q))
    assert expected.partition(" computes ")[2] in found

    text = " | ".join(f"(q_idx == {number})" for number in range(30))
    call = (Q, Q, Q, [], [], text, "", [], [], None, False, False, None, False)
    assert "different values, of at most 20" in message_of(
        errors.GraphTextError, lambda: attention_op(*call)
    )
    assert traced.MOST_NODES == 20
