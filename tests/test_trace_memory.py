"""A remembered trace is what running the function again would give."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnc.errors import AttncError
from attnc.ir import DType, Expr
from attnc.trace import SlotTable, trace_mask, trace_score

Maker = Callable[[Any, Any], Callable[..., Any]]

MASKS: list[Maker] = [
    lambda x, y: lambda b, h, q_idx, kv_idx: (q_idx - kv_idx < x) & (q_idx >= kv_idx * y),
    lambda x, y: lambda b, h, q_idx, kv_idx: (q_idx * x < kv_idx) | (q_idx < x * y),
    lambda x, y: lambda b, h, q_idx, kv_idx: torch.abs(q_idx * x - kv_idx) <= y,
    lambda x, y: lambda b, h, q_idx, kv_idx, near=x: torch.where(q_idx < near, kv_idx > y, h == b),
]
SCORES: list[Maker] = [
    lambda x, y: lambda score, b, h, q_idx, kv_idx: x * torch.tanh(score / y),
    lambda x, y: lambda score, b, h, q_idx, kv_idx: score + (q_idx - kv_idx) * x - y,
]
GATHERS: list[Maker] = [
    lambda s, t: lambda b, h, q_idx, kv_idx: (s[q_idx] == s[kv_idx]) & (q_idx >= t[kv_idx]),
    lambda s, t: lambda b, h, q_idx, kv_idx: t[q_idx] > s[s[kv_idx].long()],
]
numbers = st.one_of(
    st.integers(-3, 3),
    st.booleans(),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 2**31, -(2**40)]),
)
DTYPES = (torch.int32, torch.int64, torch.uint8, torch.float32, torch.float64)
TENSORS = [torch.arange(6).to(dtype) for dtype in DTYPES]
TENSORS += [TENSORS[0][:], TENSORS[1][:3], TENSORS[3][::2]]


def _outcome(trace: Callable[..., Any], fn: Callable[..., Any]) -> Any:
    """The expression and the tensors, or the class of the error."""
    slots = SlotTable()
    try:
        expr = trace(fn, slots).expr
    except AttncError as e:
        return type(e)
    return expr, [id(tensor) for tensor in slots.tensors], slots.types


def _run_anew(fn: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(fn)  # of these nothing is remembered


@given(st.sampled_from(MASKS), st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_captured_numbers_are_read_anew(maker: Maker, values: list[tuple[Any, Any]]) -> None:
    """Functions of one code and other numbers, by value and type, have traces of their own."""
    for x, y in [*values, *values]:
        fn = maker(x, y)
        assert _outcome(trace_mask, fn) == _outcome(trace_mask, _run_anew(fn))


@given(
    st.sampled_from(SCORES),
    st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8),
    st.sampled_from([DType.FLOAT32, DType.FLOAT64]),
)
def test_scores_are_remembered_by_dtype(
    maker: Maker, values: list[tuple[Any, Any]], dtype: DType
) -> None:
    """The same for scores, in float32 and float64."""

    def trace(fn: Callable[..., Any], slots: SlotTable) -> Any:
        return trace_score(fn, slots, dtype)

    for x, y in [*values, *values]:
        fn = maker(x, y)
        assert _outcome(trace, fn) == _outcome(trace, _run_anew(fn))


tensors = st.sampled_from(TENSORS)


@given(st.sampled_from(GATHERS), st.lists(st.tuples(tensors, tensors), min_size=2, max_size=8))
def test_captured_tensors_are_read_anew(
    maker: Maker, values: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Other tensors take the slots: of other dtypes, twice the same, or two views of one memory."""
    for s, t in [*values, *values]:
        fn = maker(s, t)
        assert _outcome(trace_mask, fn) == _outcome(trace_mask, _run_anew(fn))


def _is_remembered(fn: Callable[..., Any]) -> bool:
    """Whether a second trace does without running ``fn``."""
    trace_mask(fn, SlotTable())
    run: list[CodeType] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: run.append(frame.f_code))
    try:
        trace_mask(fn, SlotTable())
    finally:
        sys.setprofile(before)
    return fn.__code__ not in run


@pytest.mark.parametrize("maker", MASKS)
def test_straight_functions_are_not_run_twice(maker: Maker) -> None:
    """What the laws above compare is remembered indeed."""
    assert _is_remembered(maker(3, 1))


def test_gathers_of_single_elements_are_remembered() -> None:
    """Document masks are among the functions that need no second run."""
    assert _is_remembered(GATHERS[0](TENSORS[0], TENSORS[1]))


_scale = torch.tensor([1.0, 2.0])
_window = 3


class _Model:
    window = 3


_model = _Model()


def _branching(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx if _window else kv_idx >= q_idx


@pytest.mark.parametrize(
    "fn",
    [
        _branching,
        lambda b, h, q_idx, kv_idx: q_idx - kv_idx < _model.window,
        lambda b, h, q_idx, kv_idx: q_idx - kv_idx < len(_scale),
        lambda b, h, q_idx, kv_idx: (_scale * 2)[q_idx] > 1,
        lambda b, h, q_idx, kv_idx: _scale[0] > q_idx,
        lambda b, h, q_idx, kv_idx: _scale.shape[0] > q_idx,
        lambda b, h, q_idx, kv_idx: torch.dot(_scale, _scale) > q_idx,
        lambda b, h, q_idx, kv_idx: max(3, 2) > q_idx,
        lambda *indices: indices[2] >= indices[3],
    ],
)
def test_what_reads_more_is_run_each_time(fn: Callable[..., Any]) -> None:
    """Branches, attributes, other calls, contents and sizes of tensors: nothing is remembered."""
    assert not _is_remembered(fn)


def test_globals_are_read_anew() -> None:
    """A global that is assigned between two calls makes another trace."""
    names: dict[str, Any] = {"_window": 3}
    code = (lambda b, h, q_idx, kv_idx: q_idx - kv_idx < _window).__code__
    near = FunctionType(code, names)

    def traced() -> Expr:
        return trace_mask(near, SlotTable()).expr

    first = traced()
    names["_window"] = 4

    assert traced() is trace_mask(_run_anew(near), SlotTable()).expr
    assert traced() is not first
    names["_window"] = 3
    assert traced() is first


def test_defaults_and_code_are_read_anew() -> None:
    """Attributes of a function that decide what it does may be assigned."""

    def near(b: Any, h: Any, q_idx: Any, kv_idx: Any, window: int = 3) -> Any:
        return q_idx - kv_idx < window

    def far(b: Any, h: Any, q_idx: Any, kv_idx: Any, window: int = 3) -> Any:
        return q_idx - kv_idx > window

    first = trace_mask(near, SlotTable()).expr
    near.__defaults__ = (4,)
    second = trace_mask(near, SlotTable()).expr
    near.__code__ = far.__code__

    assert first is not second
    assert trace_mask(near, SlotTable()).expr is trace_mask(_run_anew(near), SlotTable()).expr


def test_a_replaced_function_of_torch_is_another_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name such as torch.abs is looked up at each call."""

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return torch.abs(q_idx - kv_idx) < 3

    first = trace_mask(mask, SlotTable()).expr
    monkeypatch.setattr(torch, "abs", torch.neg)

    assert trace_mask(mask, SlotTable()).expr is trace_mask(_run_anew(mask), SlotTable()).expr
    assert trace_mask(mask, SlotTable()).expr is not first


def test_a_tensor_of_another_dtype_in_place_is_seen() -> None:
    """``.data`` gives a captured tensor another dtype and size without another object."""
    table = torch.arange(6)
    mask = GATHERS[0](table, TENSORS[0])
    first = trace_mask(mask, SlotTable()).expr
    table.data = torch.arange(6.0)

    second = _outcome(trace_mask, mask)

    assert second == _outcome(trace_mask, _run_anew(mask))
    assert second[0] is not first
