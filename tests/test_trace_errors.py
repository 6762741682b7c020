"""Every mistake in a mod gives one error that says what, where, why and what to write instead."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attnc.errors import (
    AttncError,
    BranchOnTracedValueError,
    ConcreteValueError,
    DataDependentShapeError,
    ExpressionSyntaxError,
    InPlaceOperationError,
    ModCallError,
    ModReturnError,
    RowViewError,
    UnsupportedDTypeError,
    UnsupportedOperationError,
)
from attnc.ir import FALSE
from attnc.parser import parse_expr
from attnc.trace import SlotTable, trace_mask, trace_score

BRANCH = (
    " needs the value of {expr}, which is known only inside the kernel. "
    "Use torch.where(condition, a, b) for a choice, torch.minimum and torch.maximum for min and "
    "max, (a <= x) & (x < b) for a <= x < b, and & | ~ for and, or, not."
)


def failure(mod: Callable[..., Any], *, trace: Callable[..., Any] = trace_mask) -> AttncError:
    with pytest.raises(AttncError) as caught:
        trace(mod, SlotTable())
    return caught.value


def place(mod: Any) -> str:
    """The first line of the body of ``mod``, or of the lambda."""
    code = mod.__code__
    return f"{__file__}:{code.co_firstlineno + (code.co_name != '<lambda>')}"


def test_if_is_a_branch() -> None:
    """`if` on a traced value names the line, the source and the value."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        if q > kv:
            return kv > 1
        return q > 1

    error = failure(mask)
    assert type(error) is BranchOnTracedValueError
    assert str(error) == f"{place(mask)}: `if q > kv:`" + BRANCH.format(expr="`q_idx > kv_idx`")
    assert isinstance(error, TypeError)


@pytest.mark.parametrize(
    "mask",
    [
        lambda b, h, q, kv: q > kv and b > 1,
        lambda b, h, q, kv: q > kv or kv > 1,
        lambda b, h, q, kv: not q > kv,
        lambda b, h, q, kv: 1 <= q < 4,
        lambda b, h, q, kv: q in (1, 2),
        lambda b, h, q, kv: min(q, kv) > 1,
        lambda b, h, q, kv: max(q, 3) > kv,
        lambda b, h, q, kv: bool(q),
        lambda b, h, q, kv: True if q > 3 else kv > 1,
        lambda b, h, q, kv: torch.equal(q, kv),
        lambda b, h, q, kv: [1, 2].index(q) > 0,
    ],
)
def test_every_truth_test_is_a_branch(mask: Callable[..., Any]) -> None:
    """and, or, not, chains, in, min, max, bool() and conditional expressions are one error."""
    error = failure(mask)
    assert type(error) is BranchOnTracedValueError
    assert str(error).startswith(f"{place(mask)}: `lambda b, h, q, kv: ")


def test_functions_without_source_say_so() -> None:
    """Functions of exec and of the REPL have a line but no text."""
    namespace: dict[str, Any] = {}
    exec("def mask(b, h, q, kv):\n    if q > kv: return True", namespace)  # noqa: S102
    assert str(failure(namespace["mask"])).startswith("<string>:2: `source not available` needs")


def test_cells_with_registered_source_show_it() -> None:
    """IPython registers its cells with linecache; those lines are shown."""
    text = "def mask(b, h, q, kv):\n    return not q\n"
    namespace: dict[str, Any] = {}
    exec(compile(text, "<cell 1>", "exec"), namespace)  # noqa: S102
    linecache.cache["<cell 1>"] = (len(text), None, text.splitlines(True), "<cell 1>")
    assert str(failure(namespace["mask"])).startswith("<cell 1>:2: `return not q` needs")


def test_long_values_are_cut() -> None:
    """The value in a message stays readable when it is a large expression."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        for _ in range(60):
            q = q + q * kv
        return bool(q)

    assert len(str(failure(mask))) < 600


def test_python_numbers_cannot_be_had() -> None:
    """float(), math functions and the like ask for a value nobody has yet."""
    mask = lambda b, h, q, kv: math.sqrt(q) > kv
    error = failure(mask)
    assert type(error) is ConcreteValueError
    assert str(error) == (
        f"{place(mask)}: `mask = lambda b, h, q, kv: math.sqrt(q) > kv` asks for the "
        "value of `q_idx` as a float, but it is known only inside the kernel. Use torch.sqrt, "
        "torch.exp, ... in place of math functions, .float() for float()."
    )


@pytest.mark.parametrize(
    ("mask", "advice"),
    [
        (lambda b, h, q, kv: int(q) > 1, ".to(torch.int32)"),
        (lambda b, h, q, kv: float(q) > 1, ".float()"),
        (lambda b, h, q, kv: complex(q), "real numbers"),
        (lambda b, h, q, kv: range(q), "torch.tensor(values)"),
        (lambda b, h, q, kv: [1, 2, 3][q] > 1, "torch.tensor(values)"),
        (lambda b, h, q, kv: np.arange(3)[q] > 1, "torch.from_numpy(array)"),
        (lambda b, h, q, kv: np.arange(3)[q, kv] > 1, "torch.from_numpy(array)"),
        (lambda b, h, q, kv: len(q), "It is one number"),
        (lambda b, h, q, kv: [*q], "It is one number"),
        (lambda b, h, q, kv: q.item() > 1, "without .item()"),
        (lambda b, h, q, kv: q.tolist(), "without .tolist()"),
        (lambda b, h, q, kv: q.numpy(), "torch.from_numpy(array)"),
        (lambda b, h, q, kv: np.sqrt(np.array(q)), "torch.from_numpy(array)"),
    ],
)
def test_each_wish_for_a_number_has_its_advice(mask: Callable[..., Any], advice: str) -> None:
    """The message names what to write for that kind of number."""
    error = failure(mask)
    assert type(error) is ConcreteValueError
    assert advice in str(error)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70])
def test_integers_beyond_64_bits_are_refused(number: int) -> None:
    """PyTorch refuses them too; they must not wrap around."""
    error = failure(lambda b, h, q, kv: q - kv < number)

    assert type(error) is UnsupportedOperationError
    assert f"uses the integer {number}, which has no meaning in a kernel" in str(error)
    assert "Integers have 64 bits there: for no limit use math.inf" in str(error)


def test_random_numbers_are_refused() -> None:
    """Drawn at trace time they would be one number for all pairs."""
    error = failure(lambda b, h, q, kv: torch.rand(()) < 0.5)

    assert type(error) is UnsupportedOperationError
    assert "Draw a tensor before the call and index it" in str(error)


def test_a_misspelt_method_is_named() -> None:
    """As an AttributeError that speaks of what the user holds."""
    with pytest.raises(AttributeError, match="an index or a score has no attribute 'absolut'"):
        trace_mask(lambda b, h, q, kv: q.absolut() < kv, SlotTable())


def test_functions_of_numpy_have_one_in_torch() -> None:
    """NumPy refuses `np.exp(q_idx)` by itself; the error still names line and source."""

    def mod(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + np.exp(q)

    error = failure(mod, trace=trace_score)

    assert type(error) is ConcreteValueError
    assert str(error) == (
        f"{place(mod)}: `return s + np.exp(q)` asks for the value of "
        "an index or a score as a NumPy array, but it is known only inside the kernel. "
        "Use the function of torch in place of NumPy's, torch.exp for np.exp."
    )


def test_numpy_arrays_are_to_be_converted() -> None:
    """Arithmetic with a NumPy array does not make an array of objects."""
    table = np.arange(3)
    error = failure(lambda b, h, q, kv: q + table > 1)
    assert type(error) is UnsupportedOperationError
    assert "uses a NumPy array of shape (3,), which has no meaning" in str(error)
    assert "torch.from_numpy(array)" in str(error)


def test_unknown_functions_name_their_neighbours() -> None:
    """An unsupported function is named with what is close to it."""
    mask = lambda b, h, q, kv: torch.cummax(q, 0)
    error = failure(mask)
    assert type(error) is UnsupportedOperationError
    assert str(error) == (
        f"{place(mask)}: `mask = lambda b, h, q, kv: torch.cummax(q, 0)` uses "
        "torch.cummax, which has no meaning in a kernel. "
        "Close to it and supported: torch.max, torch.clamp_max."
    )


@pytest.mark.parametrize(
    ("mask", "part"),
    [
        (lambda b, h, q, kv: q.cumsum(0), "torch.cumsum"),
        (lambda b, h, q, kv: torch.atan(q) > 0, "torch.atan"),
        (lambda b, h, q, kv: torch.rand_like(q.float()) > 0, "torch.rand_like"),
        (lambda b, h, q, kv: torch.nn.functional.dropout(q.float()) > 0, "dropout"),
        (lambda b, h, q, kv: q.clamp(minimum=3), "torch.clamp with arguments"),
        (lambda b, h, q, kv: q.add("x"), "torch.add with arguments"),
        (lambda b, h, q, kv: q**-1 > 0, "convert the base with .float()"),
        (lambda b, h, q, kv: (q > 1) - (kv > 1), "use ^, or convert"),
        (lambda b, h, q, kv: -(q > 1), "use ~ for not"),
        (lambda b, h, q, kv: ~(q / 2), "compare it first"),
        (lambda b, h, q, kv: (q / 2) & 1, "bool or integer"),
        (lambda b, h, q, kv: q.float() << 1, "powers of two"),
        (lambda b, h, q, kv: torch.zeros(4)[q / 2] > 0, ".long() or .int()"),
        (lambda b, h, q, kv: q.to(torch.complex64), "torch.complex64"),
        (lambda b, h, q, kv: q.new_empty(()) > 0, "new_empty"),
        (lambda b, h, q, kv: torch.zeros(3, 4)[q].max(0)[0] > 0, "torch.amax"),
        (lambda b, h, q, kv: torch.zeros(3, 4)[q] + torch.zeros(3), "do not broadcast"),
    ],
)
def test_what_kernels_lack_is_said(mask: Callable[..., Any], part: str) -> None:
    """Operations without meaning in a kernel are refused one by one."""
    error = failure(mask)
    assert type(error) is UnsupportedOperationError
    assert part.lower() in str(error).lower()


def test_writing_is_refused() -> None:
    """Assignment to an element of a captured tensor."""
    table = torch.zeros(4)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        table[q] = 1.0
        return q > kv

    error = failure(mask)
    assert type(error) is InPlaceOperationError
    assert str(error) == (
        f"{place(mask)}: `table[q] = 1.0` changes a tensor in place (__setitem__). A mask_mod or "
        "score_mod is evaluated for many positions in any order, so it must not write. Compute a "
        "new value and return it."
    )


def _increment(table: torch.Tensor, amount: Any) -> torch.Tensor:
    table += amount
    return table


@pytest.mark.parametrize(
    "write",
    [
        lambda table, q: _increment(table, 1),
        lambda table, q: _increment(table, q),
        lambda table, q: table.zero_(),
        lambda table, q: table.add_(q),
        lambda table, q: torch.add(table, 1, out=table),
        lambda table, q: q.add_(1),
        lambda table, q: table[q].__setitem__(0, 1.0),
        lambda table, q: q.__setitem__((), 1.0),
        lambda table, q: table.__setitem__(0, 1.0),
    ],
)
def test_every_write_is_refused(write: Callable[..., Any]) -> None:
    """Also without a traced value in it: a mod is traced at every call."""
    table = torch.zeros(4, 4)
    error = failure(lambda b, h, q, kv: write(table, q))
    assert type(error) is InPlaceOperationError
    assert not table.any()


def test_sizes_may_not_depend_on_values() -> None:
    """A slice with a traced bound."""
    table = torch.zeros(4)
    mask = lambda b, h, q, kv: table[:q].sum() > 0
    error = failure(mask)
    assert type(error) is DataDependentShapeError
    assert str(error) == (
        f"{place(mask)}: `mask = lambda b, h, q, kv: table[:q].sum() > 0` makes a "
        "tensor whose size depends on traced values (a slice with traced bounds). Sizes must be "
        "known when the kernel is built. Use torch.where(condition, a, b) to choose between values."
    )


@pytest.mark.parametrize(
    "mask",
    [
        lambda b, h, q, kv: torch.arange(q).sum() > 0,
        lambda b, h, q, kv: torch.nonzero(q) > 0,
        lambda b, h, q, kv: torch.where(q > kv),
        lambda b, h, q, kv: torch.zeros(4)[q > kv],
        lambda b, h, q, kv: torch.zeros(3, 4)[q][torch.tensor([True, False, True, True])],
        lambda b, h, q, kv: torch.masked_select(q, q > kv),
    ],
)
def test_every_data_dependent_size_is_refused(mask: Callable[..., Any]) -> None:
    """arange, nonzero, where with one argument, bool indices."""
    assert type(failure(mask)) is DataDependentShapeError


def test_views_that_need_elements_moved_are_refused() -> None:
    """A view of a row may only add or drop dimensions of size 1."""
    table = torch.zeros(3, 4)
    mask = lambda b, h, q, kv: table[q].view(2, 2)[0, 0] > 0
    error = failure(mask)
    assert type(error) is RowViewError
    assert str(error) == (
        f"{place(mask)}: `mask = lambda b, h, q, kv: table[q].view(2, 2)[0, 0] > 0` "
        "makes a view of shape (2, 2) of a row of shape (4,), but a kernel reads rows as they are: "
        "their views may only add or drop dimensions of size 1. Make the view of the captured "
        "tensor, before it is indexed, or index the row as it is."
    )


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (torch.complex64, "Capture its .real and .imag, or torch.view_as_real of it."),
        (torch.uint16, "Convert it with .to(torch.int64)."),
        (torch.uint64, "Convert it with .to(torch.int64)."),
        (torch.float8_e4m3fn, "Convert it with .float()."),
    ],
)
def test_unreadable_dtypes_are_named(dtype: torch.dtype, advice: str) -> None:
    """Captured tensors of dtypes that kernels do not load."""
    table = torch.zeros(4, dtype=dtype)
    mask = lambda b, h, q, kv: table[q] > 0
    error = failure(mask)
    assert type(error) is UnsupportedDTypeError
    assert str(error) == (
        f"{place(mask)}: `mask = lambda b, h, q, kv: table[q] > 0` reads a tensor of dtype "
        f"{dtype}, which a kernel cannot read. {advice}"
    )


def test_sparse_tensors_are_refused() -> None:
    """Kernels read strided memory."""
    with pytest.raises(
        UnsupportedDTypeError, match=r"sparse_coo, which a kernel cannot read.*to_dense"
    ):
        SlotTable().slot_of(torch.eye(3).to_sparse())


def test_wrong_number_of_parameters() -> None:
    """The call that is made is shown, with Python's own reason."""

    def causal(q: Any, kv: Any) -> Any:
        return q >= kv

    error = failure(causal)
    assert type(error) is ModCallError
    assert str(error) == (
        "test_wrong_number_of_parameters.<locals>.causal cannot be called as a mask_mod, that is "
        "as (b, h, q_idx, kv_idx): too many positional arguments. Take these parameters by "
        "position; give further ones a default, or bind them with functools.partial."
    )
    assert "score_mod, that is as (score, b, h, q_idx, kv_idx)" in str(
        failure(causal, trace=trace_score)
    )
    assert "missing a required argument: 'extra'" in str(failure(lambda b, h, q, kv, extra: q > kv))
    assert "a Tensor cannot be called as a mask_mod" in str(failure(torch.zeros(3)))  # type: ignore[arg-type]


_WITH_DIMENSIONS = (
    "Index it with b, h, q_idx or kv_idx, or reduce it with .sum(), .max() or torch.dot."
)


@pytest.mark.parametrize(
    ("mask", "got", "instead"),
    [
        (lambda *_: None, "None", "Add the missing `return`."),
        (lambda b, h, q, kv: (q, kv), "a tuple", "Return one value."),
        (lambda *_: 3, "the int 3", "Compare it, as in `... != 0`."),
        (
            lambda b, h, q, kv: q & 1,
            "the int32 value `q_idx & 1`",
            "Compare it, as in `... != 0`; a score_mod is passed as such.",
        ),
        (lambda b, h, q, kv: torch.ones(1, 4) > q, "a tensor of shape (1, 4)", _WITH_DIMENSIONS),
    ],
)
def test_wrong_results_of_masks_are_named(mask: Callable[..., Any], got: str, instead: str) -> None:
    """A mask_mod returns a bool without dimensions."""
    error = failure(mask)
    assert type(error) is ModReturnError
    assert str(error) == f"<lambda> returned {got}, but a mask_mod must return a bool. {instead}"


@pytest.mark.parametrize(
    ("score", "got", "instead"),
    [
        (lambda *_: None, "None", "Add the missing `return`."),
        (lambda *_: "x", "a str", "Return one value."),
        (lambda s, *_: s + torch.ones(1), "a tensor of shape (1,)", _WITH_DIMENSIONS),
    ],
)
def test_wrong_results_of_scores_are_named(
    score: Callable[..., Any], got: str, instead: str
) -> None:
    """A score_mod returns a number without dimensions."""
    error = failure(score, trace=trace_score)
    assert type(error) is ModReturnError
    assert str(error) == f"<lambda> returned {got}, but a score_mod must return a number. {instead}"


def test_errors_of_the_mod_itself_pass_through() -> None:
    """What the user's code raises is not wrapped; what it does with a symbol in vain has its line."""

    def broken(b: Any, h: Any, q: Any, kv: Any) -> Any:
        raise KeyError("window")

    with pytest.raises(KeyError, match="window"):
        trace_mask(broken, SlotTable())
    with pytest.raises(UnsupportedOperationError, match="unsupported operand"):
        trace_mask(lambda b, h, q, kv: q + "x", SlotTable())
    with pytest.raises(AttributeError, match="'window'"):
        trace_mask(lambda b, h, q, kv: q.window, SlotTable())
    with pytest.raises(IndexError, match="index 5 is out of bounds for dimension 1 with size 4"):
        trace_mask(lambda b, h, q, kv: torch.zeros(3, 4)[q, 5] > 0, SlotTable())
    with pytest.raises(IndexError, match="2 indices to a tensor of 1"):
        trace_mask(lambda b, h, q, kv: torch.zeros(3)[q, kv] > 0, SlotTable())


def test_comparison_with_none_is_false() -> None:
    """`q == None` is an identity test in Python, not an operation on values."""
    assert trace_mask(lambda b, h, q, kv: None in (1, q), SlotTable()).expr is FALSE


def test_wrong_text_forms_are_named() -> None:
    """The parser says which part is not an expression."""
    with pytest.raises(ExpressionSyntaxError) as caught:
        parse_expr("q_idx + unknown")
    assert str(caught.value) == (
        "`unknown` is not an expression in attnc's text form: the name is unknown or not declared. "
        "Write what format_program writes, such as `q_idx >= kv_idx`."
    )


@pytest.mark.parametrize(
    "text",
    ["", "q_idx +", "q_idx < kv_idx < 3", "t0[q_idx]", "p0", "q_idx + int64(kv_idx)", "f(q_idx)",
     "import os", "q_idx; kv_idx", "t0: half\nt0[q_idx]", "sum(q_idx for x in range(3))"],
)  # fmt: skip
def test_no_other_text_is_parsed(text: str) -> None:
    """Nothing but the text form is accepted."""
    with pytest.raises(ExpressionSyntaxError):
        parse_expr(text)
