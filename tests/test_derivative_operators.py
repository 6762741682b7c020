"""Derivatives of every operator, at awkward values too: those of autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from derivatives import F64, Mod, derivative_of
from hypothesis import given
from hypothesis import strategies as st

from attnc.evaluate import evaluate
from attnc.ir import (
    Const,
    UnaryOp,
)

INF, NAN = math.inf, math.nan

# --- operators ------------------------------------------------------------------------

AWKWARD = (-INF, -1e3, -20.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 1e3, INF)

UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "floor": lambda x: torch.floor(x) + x,
    "ceil": lambda x: torch.ceil(x) + x,
    "trunc": lambda x: torch.trunc(x) + x,
    "round": lambda x: torch.round(x) + x,
    "isnan": lambda x: x + torch.isnan(x),
    "invert": lambda x: x * ~(x > 0),
    "sign": lambda x: torch.sign(x) + x,
    "power 0": lambda x: x**0 + x,
    "power 1": lambda x: x**1.0,
    "power 2": lambda x: x**2,
    "power 3": lambda x: x**3,
    "power 0.5": lambda x: x**0.5,
    "power -1": lambda x: x**-1.0,
    "base 2": lambda x: 2.0**x,
    "base 1": lambda x: 1.0**x + x,
    "base 0": lambda x: 0.0**x,
    "base -2": lambda x: (-2.0) ** x,
    "quotient": lambda x: x / 3,
    "reciprocal": lambda x: 1 / x,
    "integer": lambda x: x * x.int(),
    "half": lambda x: x.float() * x,
    "clamp min": lambda x: x.clamp(min=-1),
    "clamp max": lambda x: x.clamp(max=3),
    "constant extremum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "where": lambda x: torch.where(x > 1, x * 3, x),
    "unused": lambda x: torch.where(x > 1, 5.0, 7.0) + 0 * x,
}

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "floordiv": lambda x, y: torch.div(x, y, rounding_mode="floor") + x + y,
    "mod": torch.remainder,
    "fmod": torch.fmod,
    "pow": torch.pow,
    "min": torch.minimum,
    "max": torch.maximum,
    "where": lambda x, y: torch.where(x < y, 2 * x, 3 * y),
    "clamp min": lambda x, y: torch.clamp(x, min=y),
    "clamp max": lambda x, y: torch.clamp(x, max=y),
    "lerp": lambda x, y: torch.lerp(x, y, 0.25),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y, value=0.5),
}

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "elu 2": lambda x: F.elu(x, alpha=2.0),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "softplus 2": lambda x: F.softplus(x, beta=2.0, threshold=6.0),
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "softsign": F.softsign,
    "threshold": lambda x: F.threshold(x, 1.0, 5.0),
    "square": torch.square,
    "reciprocal": torch.reciprocal,
    "frac": torch.frac,
    "log10": torch.log10,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "erfc": torch.erfc,
    "logit": lambda x: torch.logit(x, eps=0.25),
    "nan_to_num": torch.nan_to_num,
    "clamp": lambda x: torch.clamp(x, -1.0, 3.0),
    "logaddexp": lambda x: torch.logaddexp(x, x.new_zeros(())),
    "masked_fill": lambda x: x.masked_fill(x > 0, -1.0),
}


def derivatives(function: Callable[..., Any], *points: torch.Tensor) -> list[torch.Tensor]:
    """Of ``function(score, t0[q_idx])`` by both, at points of shape (n,)."""
    score, *others = points
    fn: Mod = lambda s, b, h, q, kv: function(s, *(t[q] for t in others))
    found, tensors = derivative_of(fn)
    by_slot = {scatter.slot: scatter.factor for scatter in found.captured}
    zero = Const(0.0, F64)
    wanted = [found.score, *(by_slot.get(slot, zero) for slot in range(len(others)))]
    at: dict[str, Any] = {"b": 0, "h": 0, "q_idx": torch.arange(len(score)), "kv_idx": 0}
    return [evaluate(x, **at, score=score, tensors=tensors).expand(len(score)) for x in wanted]


def autograd(
    function: Callable[..., Any], *points: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    inputs = [x.clone().requires_grad_() for x in points]
    out = function(*inputs)
    return out.detach(), torch.autograd.grad(out.sum(), inputs)


def equal(mine: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", UNARY)
def test_operators_of_one_operand(name: str) -> None:
    """At zeros of both signs, infinities and NaN: what PyTorch gives, NaN included."""
    x = torch.tensor([*AWKWARD, NAN], dtype=torch.float64)
    match name:
        case "clamp min" | "clamp max":
            x = x[~x.isnan()]  # the value is NaN there, the derivative anything
        case "integer":
            x = x[x.isfinite()]  # PyTorch's conversion is undefined elsewhere
        case "power 0.5":
            x = x[x > 0]  # elsewhere PyTorch's kernels differ by the length of the tensor
    _, (expected,) = autograd(UNARY[name], x)

    (mine,) = derivatives(UNARY[name], x)

    equal(mine, expected)


@pytest.mark.parametrize("name", BINARY)
def test_operators_of_two_operands(name: str) -> None:
    """At all pairs of such points, ties among them."""
    values = torch.tensor([*AWKWARD, NAN], dtype=torch.float64)
    x, y = (side.reshape(-1) for side in torch.meshgrid(values, values, indexing="ij"))
    if name in ("clamp min", "clamp max", "fmod"):  # compositions: where their value is a number
        known = ~BINARY[name](x, y).isnan()
        x, y = x[known], y[known]
    _, expected = autograd(BINARY[name], x, y)

    mine = derivatives(BINARY[name], x, y)

    for one, other in zip(mine, expected, strict=True):
        equal(one, other)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_their_own_derivatives(name: str) -> None:
    """At their kinks, and wherever their value is finite: no branch not taken shows."""
    x = torch.tensor([*AWKWARD, 0.25, 0.75, 19.0, -700.0, 700.0], dtype=torch.float64)
    out, (expected,) = autograd(ACTIVATIONS[name], x)
    is_finite = out.isfinite() & x.isfinite()

    (mine,) = derivatives(ACTIVATIONS[name], x)

    # PyTorch has 1 / 6 in float32 in some of its formulas.
    torch.testing.assert_close(mine[is_finite], expected[is_finite], rtol=1e-7, atol=1e-9)


def test_all_operators_are_tried() -> None:
    """Every operator of one operand is among the cases above, by its name."""
    named = {op.value for op in UnaryOp} - {"-", "~"} | {"neg", "invert"}

    assert named <= set(UNARY)


# --- choices --------------------------------------------------------------------------


def _twice_chosen(x: Any) -> Any:
    root = torch.sqrt(torch.where(x > 0, x, 0.0))
    return torch.where(x > 2, root, 0.0) + torch.where(x > 3, 2 * root, 0.0)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.where(x > 0, torch.sqrt(x), 0.0),
        lambda x: torch.where(x > 0, torch.log(x), x),
        lambda x: torch.where(x > 0, 1 / x, 1 / (x - 1)),
        lambda x: torch.where(x != 0, torch.where(x > 0, x**0.5, (-x) ** 0.5), 0.0),
        lambda x: torch.where(x > 0, torch.sqrt(x), torch.where(x < 0, -torch.sqrt(-x), 0.0)),
        _twice_chosen,
    ],
)
def test_branch_not_taken_makes_no_nan(fn: Callable[[Any], Any]) -> None:
    """Where autograd multiplies 0 by inf, the derivative is that of the branch taken."""
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 1.5, 2.5, 4.0], dtype=torch.float64)
    step = 1e-7
    slope = (fn(x + step) - fn(x - step)) / (2 * step)

    (mine,) = derivatives(fn, x)

    assert mine.isfinite().all()
    smooth = slope.isfinite() & (slope.abs() < 1e3)
    torch.testing.assert_close(mine[smooth], slope[smooth], rtol=1e-5, atol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.data())
def test_nested_choices_are_those_of_autograd(cuts: list[tuple[int, bool]], data: Any) -> None:
    """A tower of choices over shared values, nested in either branch."""
    factors = [data.draw(st.sampled_from([1.0, -1.0, 0.5, 3.0])) for _ in cuts]

    def fn(x: Any) -> Any:
        shared = torch.tanh(x)
        value = shared
        for (cut, inside), factor in zip(cuts, factors, strict=True):
            other = shared * factor if inside else x * value
            value = torch.where(x > cut, value + shared, other)
        return value

    x = torch.linspace(-2.25, 4.25, 14, dtype=torch.float64)
    _, (expected,) = autograd(fn, x)

    (mine,) = derivatives(fn, x)

    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
