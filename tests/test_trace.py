"""What a mod computes on symbols is what it computes on 0-dim tensors."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attnc.evaluate import evaluate
from attnc.ir import FALSE, TRUE, Const, DType, Gather, SlotType
from attnc.printer import format_expr
from attnc.trace import Location, SlotTable, trace_mask, trace_score

#: (score, b, h, q_idx, kv_idx)
POINTS = [
    (0.0, 0, 0, 0, 0),
    (-1.5, 1, 2, 3, 1),
    (0.3, 0, 1, 2, 5),
    (2.5, 1, 0, 5, 4),
    (-0.5, 0, 2, 4, 4),
    (25.0, 1, 1, 1, 3),
    (float("nan"), 0, 0, 5, 2),
    (float("-inf"), 1, 2, 3, 3),
]
_generator = torch.Generator().manual_seed(0)
NAMES: dict[str, Any] = {
    "torch": torch,
    "F": F,
    "math": math,
    "np": np,
    "operator": operator,
    "inf": math.inf,
    "doc": torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.int32),
    "perm": torch.tensor([3, 1, 5, 0, 2, 4]),
    "table": torch.randn(3, 6, generator=_generator),
    "wide": torch.randn(2, 3, 6, 4, generator=_generator),
    "strided": torch.randn(6, 3, generator=_generator).T[:, ::2],
    "expanded": torch.randn(3, 1, generator=_generator).expand(3, 6),
    "flags": torch.tensor([True, False, True, True, False, True]),
    "small": torch.tensor([-3, 7, 100, -128, 127, 0], dtype=torch.int8),
    "unsigned": torch.tensor([0, 255, 3, 4, 200, 9], dtype=torch.uint8),
    "short": torch.tensor([0, -300, 3, 4, 200, 9], dtype=torch.int16),
    "half": torch.randn(6, generator=_generator).half(),
    "brain": torch.randn(6, generator=_generator).bfloat16(),
    "double": torch.randn(6, dtype=torch.float64, generator=_generator),
    "zero_dim": torch.tensor(2),
    "zero_dim_float": torch.tensor(0.75),
    "parameter": torch.nn.Parameter(torch.randn(3, generator=_generator)),
    "weight": torch.randn(2, 4, generator=_generator),
    "bounds": torch.tensor([0, 2, 4]),
}

OPERATORS = """
s + q;  q - kv;  3 - q;  s * 2;  2 * q;  q / 2;  q / kv;  1 / (q + 1);  s / 2;  q // 2;  -q // 2
(q - kv) // 3;  (q - kv) // -3;  s // 2;  7 // (q + 1);  q % 3;  (q - kv) % 3;  (q - kv) % -3
s % 2.0;  s % -2.0;  7 % (q + 1);  q ** 2;  2 ** q;  s ** 2;  abs(s) ** 0.5;  q & 3;  q | 4;  q | kv;  q ^ kv
6 & q;  1 << q;  q << 1;  q >> 1;  (q - kv) >> 1;  ~q;  ~(q > kv);  -s;  +s;  abs(q - kv);  abs(s)
q == kv;  q != kv;  q < 3;  3 <= q;  q > 2.5;  q >= kv;  s < q;  (q > kv) & (kv > 1);  (q > 1) | False
(q > kv) ^ True;  (q > kv) + (kv > 1);  (q > kv) * (kv > 1);  (q > kv) + 1;  (q > kv) * 2.5
(q > kv) * s;  q + (q > kv);  q + 0.5;  q + True
q + np.int64(3);  np.float32(1.5) * s;  np.int32(2) + q;  q < inf;  q.float() == -inf
operator.ge(q, kv);  (q > kv) & 1;  (q & 1) | (kv > 2)
"""
FUNCTIONS = """
torch.exp(s);  s.exp();  torch.exp2(s);  s.expm1();  torch.log(abs(s));  torch.log2(q + 1.0)
torch.log1p(abs(s));  torch.log10(abs(s));  torch.sqrt(q);  abs(s).sqrt();  torch.rsqrt(q + 1)
torch.sin(s);  q.cos();  torch.tan(q);  torch.tanh(s);  s.sigmoid();  torch.special.expit(s)
torch.erf(s);  s.erf();  torch.special.erf(s);  torch.erfc(s);  torch.sinh(q / 4);  torch.sinh(s)
torch.cosh(s);  s.floor();  torch.ceil(s);  torch.trunc(s);  torch.fix(s);  torch.round(s);  q.floor()
torch.round(s, decimals=1);  torch.round(s * 100, decimals=-1);  torch.frac(s)
torch.isnan(s);  s.isnan();  torch.isinf(s);  torch.isfinite(s);  torch.isposinf(s);  torch.isneginf(s)
torch.isnan(q);  torch.isinf(q);  torch.isfinite(q)
torch.abs(s);  torch.absolute(q);  torch.neg(s);  torch.negative(q);  torch.positive(q)
torch.square(s);  q.square();  torch.reciprocal(q + 1);  torch.sign(q - kv);  torch.sign(s);  torch.sgn(s)
torch.add(s, q);  torch.add(s, q, alpha=2);  s.add(1);  torch.sub(q, kv, alpha=3);  s.sub(q)
torch.subtract(q, 1);  torch.rsub(q, 5);  torch.mul(q, s);  s.multiply(2);  torch.div(q, 2)
torch.div(q - kv, 3, rounding_mode="floor");  torch.div(q - kv, 3, rounding_mode="trunc")
torch.div(s, 2, rounding_mode="trunc");  torch.divide(s, 2);  torch.true_divide(q, 4)
torch.floor_divide(q - kv, 2);  (q - kv).floor_divide(-2);  torch.remainder(q - kv, 3)
torch.fmod(q - kv, 3);  torch.fmod(s, 2.0);  torch.pow(q, 2);  torch.pow(2.0, q);  s.pow(2)
torch.minimum(q, kv);  torch.maximum(s, q);  q.minimum(kv);  torch.min(q, kv);  torch.max(q, kv)
torch.max(s, q.float());  q.max(kv);  torch.minimum(q > 1, kv > 1);  torch.maximum(q > 1, kv > 1)
torch.clamp(q, 1, 3);  torch.clamp(q, min=1);  q.clamp(max=2);  q.clamp(1);  s.clamp(-1, 1)
s.clamp(min=0.5);  torch.clamp(q, max=kv);  torch.clamp(q, min=kv, max=kv + 1);  torch.clip(s, -1.0, 1.0)
torch.clamp(q, 0.5);  torch.clamp_min(s, 0);  s.clamp_max(1.0);  F.hardtanh(s)
torch.where(q > kv, s, -inf);  torch.where(q > kv, s, 0);  torch.where(q > kv, 1, 0)
torch.where(q > kv, 1.0, 0.0);  torch.where(q > kv, q, kv);  torch.where(q > kv, q, s)
torch.where(q > kv, True, False);  s.where(q > kv, -inf);  torch.where(q > kv, q, 0.5)
s.masked_fill(q > kv, -inf);  torch.masked_fill(s, q < kv, 0.0)
torch.relu(s);  F.relu(s);  s.relu();  F.relu6(s);  F.leaky_relu(s);  F.leaky_relu(s, 0.2);  F.elu(s)
F.silu(s);  F.gelu(s);  F.gelu(s, approximate="tanh");  F.softplus(s);  F.softplus(s, beta=2.0)
F.mish(s);  F.logsigmoid(s);  F.hardsigmoid(s);  F.hardswish(s);  F.softsign(s)
F.threshold(s, 0.1, 20.0);  torch.nn.GELU()(s);  torch.nn.Sigmoid()(s);  torch.nn.SiLU()(s)
torch.heaviside(s, torch.tensor(0.5));  torch.nan_to_num(s);  s.nan_to_num(1.0, posinf=2.0, neginf=-2.0)
torch.logit(s.sigmoid(), 1e-3);  torch.logaddexp(s, q.float());  torch.lerp(s, q.float(), 0.25)
torch.lerp(s, q.float(), 0.75);  torch.addcmul(s, s, s);  torch.addcmul(s, s, s, value=0.5)
torch.addcdiv(s, s, q + 1.5)
torch.logical_and(q > 1, kv > 1);  torch.logical_and(q, kv);  torch.logical_or(q > 1, s > 0)
torch.logical_not(q);  torch.logical_xor(q > 1, kv > 1);  (q > 1).logical_not()
torch.bitwise_and(q, 3);  torch.bitwise_or(q, kv);  q.bitwise_xor(1);  torch.bitwise_not(q)
torch.bitwise_left_shift(q, 1);  torch.bitwise_right_shift(q, 1);  q.bitwise_left_shift(kv)
torch.eq(q, kv);  q.ne(kv);  torch.lt(q, 3);  q.le(kv);  torch.gt(s, 0);  q.ge(2);  torch.greater(q, kv)
torch.less_equal(q, kv);  torch.not_equal(q, kv)
"""
CONVERSIONS = """
q.to(torch.float32);  q.to(torch.int64);  q.to(dtype=torch.bool);  s.nan_to_num().clamp(-9, 9).to(torch.int32);  q.int()
q.long();  q.float();  q.double();  q.bool();  (q > kv).int();  q.type(torch.float64);  q.type_as(s)
q.to(s);  q.to(table);  q.to("cpu");  q.to("cpu", torch.float32);  (s > 0).to(q.dtype)
(q * 100).to(torch.uint8).int();  (q * 100).to(torch.int8).int();  (q * 20000).short().int()
s.clone();  s.detach();  q.contiguous();  s.view(());  s.squeeze();  s.reshape(());  s.unsqueeze(0).sum()
s.unsqueeze(0).squeeze(0);  s.expand(());  s.view(1)[0];  q + q.ndim;  q + q.dim() + q.numel()
q + len(q.shape);  q + len(q.size());  q + int(q.is_floating_point());  q + int(s.requires_grad)
q + int(q.dtype == torch.int32);  torch.zeros(2, device=q.device)[0] + q;  torch.numel(q) + q
q.new_ones((), dtype=torch.bool);  q.new_ones(());  q.new_zeros(());  q.new_full((), 3);  q.new_tensor(5)
s.new_full((), -inf);  s.new_zeros(());  q.new_zeros(3, dtype=torch.float32)[h]
torch.zeros_like(q);  torch.ones_like(s);  torch.full_like(s, 2.0);  torch.ones_like(q, dtype=torch.bool)
torch.where(q > kv, s, torch.zeros(()));  q + torch.tensor(5);  s * torch.tensor(2.0);  torch.tensor(3) - q
torch.where(q > kv, torch.tensor(1.0), torch.tensor(0.0));  torch.full((), 2.0) + q
torch.as_tensor(q);  torch.max(torch.stack([q, kv]));  torch.stack([q, kv, h])[b]
torch.tensor([1, 2, 3])[h] + q;  torch.result_type(q, s) and q
"""
GATHERS = """
doc[q];  doc[q] == doc[kv];  table[h, q];  table[h][q];  table[2, q];  table[h, 1];  table[h, -1]
table[-1, q];  table[:, q][h];  table[..., q][h];  table[h, ...][q];  table[h][None][0][q]
table[h, 1:][kv.clamp(max=4)];  table[h][1:4][-1];  table[h][::2][b];  table[h][1:][q - 5]
wide[b, h, q, 0];  wide[b][h][q][1];  wide[b, :, q][h, 3];  wide[b, h][q, 2];  wide[b, h, q][-1]
strided[h, b];  strided[h][b];  expanded[h, q];  flags[q];  flags[q] & flags[kv];  half[q].float();  brain[q].float();  double[q]
double[q] * s;  doc[perm[q]];  table[doc[q].long()][kv];  table[h, perm[kv]];  perm[q] + q
zero_dim + q;  q * zero_dim;  zero_dim_float * s;  zero_dim_float < s;  parameter[h] * s
(table * 2)[h, q];  table.T[q, h];  torch.cumsum(doc, 0)[q];  table.flatten()[q];  (-table)[h][kv]
table[h, doc[q] + 1];  table[h, q - kv];  doc[q - 6];  torch.take(table, q.long());  table.select(0, h)[q]
torch.dot(wide[b, h, q], wide[b, h, kv]);  (wide[b, h, q] * wide[b, h, kv]).sum()
wide[b, h, q] @ wide[b, h, kv];  torch.inner(wide[b, h, q], wide[b, h, kv]);  table[h].sum()
torch.sum(table[h]);  table[h].max();  table[h].min();  table[h].mean();  table[h].amax();  table.amin(1)[h]
wide[b, h].sum();  wide[b, h].sum(-1)[q];  wide[b, h].sum(0)[2];  wide[b, h].mean(1)[q];  wide[b].amax((0, 2))[q]
wide[b, h].sum(1, keepdim=True)[q, 0];  (table[h] * s).sum();  (table[h] + q).max();  (table[h] > s).any()
(table[h] > -10).all();  (doc == h).any();  (doc[q] == bounds).any();  (doc == doc[q]).sum();  doc[1:4].sum() + q
torch.exp(table[h]).sum().log();  (table[h] - table[h].max()).exp().sum();  torch.where(table[h] > 0, table[h], 0.0).sum()
table[h].clamp(min=0).sum();  torch.count_nonzero(doc == h);  flags.sum() + q;  table[h].norm();  torch.linalg.norm(table[h])
sum(table[h]);  table[h][0] + table[h][1];  (lambda x, y, z, w: x * w + y - z)(*wide[b, h, q])
(weight @ wide[b, h, q])[b];  (wide[b, h, q] @ weight.T)[b];  F.linear(wide[b, h, q], weight)[1]
F.linear(wide[b, h, q], weight, weight[:, 0]).sum();  F.embedding(q, table.T)[h];  len(table[h]) + q
torch.searchsorted(bounds, q);  torch.searchsorted(bounds, q, right=True);  torch.bucketize(q, bounds)
torch.bucketize(q, bounds, right=True);  torch.searchsorted(bounds, q, side="right");  torch.isin(q, bounds)
table[h][perm].sum();  table[h][perm[:3]][1];  table[:, perm][h, q];  wide[b, :, perm][h, 2, q.clamp(max=3)]
wide[b, h, q, perm[:2] % 4].sum();  table[h].unsqueeze(0)[0, q];  table[h].view(-1)[q];  table[h].view(1, 6)[0, q]
(table[:, :4].matmul(wide[b, h, q]))[h];  (wide[b, h, q] * weight).sum(1)[b];  table[[0, 2]][b, q]
"""


def spellings(text: str) -> list[str]:
    """Expressions, one per line or separated by semicolons."""
    return [part.strip() for line in text.strip().splitlines() for part in line.split(";")]


def check_against_torch(text: str, *, has_equal_dtype: bool = True) -> None:
    mod: Callable[..., Any] = eval(f"lambda s, b, h, q, kv: {text}", dict(NAMES))
    seen: list[torch.dtype] = []

    def recording(*args: Any) -> Any:
        result = mod(*args)
        seen.append(result.dtype)
        return result

    slots = SlotTable()
    expr = trace_score(recording, slots).expr
    for s, b, h, q, kv in POINTS:
        indices = [torch.tensor(i, dtype=torch.int32) for i in (b, h, q, kv)]
        score = torch.tensor(s)
        expected = mod(score, *indices)
        assert seen[0] is expected.dtype or not has_equal_dtype
        names = dict(zip(("b", "h", "q_idx", "kv_idx"), indices, strict=True))
        actual = evaluate(expr, **names, score=score, tensors=slots.tensors)
        torch.testing.assert_close(
            actual, expected.detach().float(), rtol=2e-6, atol=1e-6, equal_nan=True
        )


@pytest.mark.parametrize("text", spellings(OPERATORS))
def test_operators_mean_what_they_mean_in_torch(text: str) -> None:
    """Values and dtypes of operators on symbols are those on 0-dim tensors."""
    check_against_torch(text)


@pytest.mark.parametrize("text", spellings(FUNCTIONS))
def test_functions_mean_what_they_mean_in_torch(text: str) -> None:
    """Values and dtypes of torch functions and methods are those on 0-dim tensors."""
    check_against_torch(text)


@pytest.mark.parametrize("text", spellings(CONVERSIONS))
def test_conversions_mean_what_they_mean_in_torch(text: str) -> None:
    """Casts, views, properties and made constants are those of 0-dim tensors."""
    check_against_torch(text)


@pytest.mark.parametrize("text", spellings(GATHERS))
def test_gathers_mean_what_they_mean_in_torch(text: str) -> None:
    """Captured tensors are indexed and reduced as torch does it."""
    check_against_torch(text)


NARROW = """
small[q]; small[q] + kv; unsigned[q]; short[kv] * 10.0; half[q] * s; brain[q]; half[q] * 0.5 + s
q.half() + s; q.bfloat16() * s; (q > kv).char(); q.byte() + kv; q.short()
"""


@pytest.mark.parametrize("text", spellings(NARROW))
def test_narrow_values_are_computed_in_32_bits(text: str) -> None:
    """int8, int16, uint8 are computed in int32, float16 and bfloat16 in float32."""
    check_against_torch(text, has_equal_dtype=False)


def score_text(mod: Callable[..., Any], dtype: DType = DType.FLOAT32) -> str:
    return format_expr(trace_score(mod, SlotTable(), dtype).expr)


def mask_text(mod: Callable[..., Any]) -> str:
    return format_expr(trace_mask(mod, SlotTable()).expr)


def test_what_tensors_lack_but_python_has() -> None:
    """round, divmod and NumPy arrays without dimensions."""
    assert score_text(lambda s, b, h, q, kv: round(s)) == "round(score)"
    assert score_text(lambda s, b, h, q, kv: round(s, 1)) == "round(score * 10.0) / 10.0"
    assert score_text(lambda s, b, h, q, kv: divmod(q, 3)[0]) == "float32(q_idx // 3)"
    assert score_text(lambda s, b, h, q, kv: divmod(7, q)[1]) == "float32(7 % q_idx)"
    assert score_text(lambda s, b, h, q, kv: q - np.array(2)) == "float32(q_idx - 2)"


def test_constants_beyond_int32_make_int64() -> None:
    """Where torch raises or wraps around, the computation is done in int64."""
    assert mask_text(lambda b, h, q, kv: q * 3_000_000_000 > kv) == (
        "int64(q_idx) * 3000000000 > int64(kv_idx)"
    )
    assert mask_text(lambda b, h, q, kv: q < 2**31) == "int64(q_idx) < 2147483648"
    assert mask_text(lambda b, h, q, kv: q >= -(2**31)) == "q_idx >= -2147483648"


def test_float_dtype_of_the_kernel_decides_between_int_and_float() -> None:
    """int / int and int with a Python float are float64 in a float64 kernel."""
    text = score_text(lambda s, b, h, q, kv: s + q / 2 + kv * 0.5, DType.FLOAT64)
    assert text == "score + float64(q_idx) / 2.0 + float64(kv_idx) * 0.5"
    assert mask_text(lambda b, h, q, kv: q / 2 > 0.5) == "float32(q_idx) / 2.0 > 0.5"


def test_no_source_is_needed() -> None:
    """Closures, partials, bound methods, callable objects, exec functions, builtins."""

    class Window:
        def __init__(self, size: int) -> None:
            self.size = size

        def mask(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
            return q - kv < self.size

        __call__ = mask

    namespace: dict[str, Any] = {}
    exec("def mask(b, h, q, kv, size=8): return q - kv < size", namespace)  # noqa: S102

    expected = "q_idx - kv_idx < 8"
    window = Window(8)
    assert mask_text(window) == mask_text(window.mask) == mask_text(namespace["mask"]) == expected
    assert mask_text(functools.partial(lambda n, b, h, q, kv: q - kv < n, 8)) == expected
    assert mask_text(lambda *indices: operator.lt(indices[2] - indices[3], 8)) == expected
    assert score_text(lambda score, *indices: abs(score)) == "abs(score)"


def test_equal_functions_give_one_expression() -> None:
    """Two functions that compute the same are the same object, however they are spelled."""
    first = trace_mask(lambda b, h, q, kv: torch.logical_and(q >= kv, q.sub(kv).lt(4)), SlotTable())
    second = trace_mask(lambda b, h, i, j: i.ge(j) & (i - j < 4), SlotTable())
    assert first.expr is second.expr


def test_python_bools_are_masks() -> None:
    """A mask_mod may return True or False, or a bool made by torch or NumPy."""
    assert trace_mask(lambda b, h, q, kv: True, SlotTable()).expr is TRUE
    assert trace_mask(lambda b, h, q, kv: np.bool_(False), SlotTable()).expr is FALSE
    assert trace_mask(lambda b, h, q, kv: torch.tensor(True), SlotTable()).expr is TRUE
    assert (
        trace_mask(lambda b, h, q, kv: q.new_ones((), dtype=torch.bool), SlotTable()).expr is TRUE
    )


def test_captured_tensor_without_dimensions_is_read_at_run_time() -> None:
    """Its value may change between calls, so it is a slot, not a constant."""
    flag, slots = torch.tensor(True), SlotTable()
    traced = trace_mask(lambda b, h, q, kv: flag, slots)
    assert traced.expr is Gather(0, (), DType.BOOL)
    assert slots.tensors[0] is flag


def test_score_may_be_a_number() -> None:
    """The result is converted to the float dtype of the kernel."""
    traced = trace_score(lambda s, b, h, q, kv: 1, SlotTable(), DType.FLOAT64)
    assert traced.expr is Const(1.0, DType.FLOAT64)


def test_one_tensor_is_one_slot() -> None:
    """Equal views of one memory share a slot; other shapes and strides do not."""
    table, slots = torch.zeros(4, 4), SlotTable()
    assert slots.slot_of(table) == slots.slot_of(table[:]) == slots.slot_of(table.view(4, 4)) == 0
    assert slots.slot_of(table.T) == 1
    assert slots.slot_of(table.flatten()) == 2
    assert slots.slot_of(table.clone()) == 3
    assert slots.types[0] == SlotType("float32", 2)
    assert len(slots.types) == len(slots.tensors) == 4


def test_views_with_gradients_keep_their_slots() -> None:
    """A parameter and its detached alias differ: only one of them gets a gradient."""
    parameter, slots = torch.nn.Parameter(torch.zeros(4)), SlotTable()
    assert slots.slot_of(parameter) == slots.slot_of(parameter) == 0
    assert slots.slot_of(parameter.detach()) == 1


def test_mask_and_score_share_slots() -> None:
    """Slot numbers are common to both when both are traced into one table."""
    doc, bias, slots = torch.zeros(8, dtype=torch.int32), torch.zeros(8), SlotTable()
    trace_mask(lambda b, h, q, kv: doc[q] == doc[kv], slots)
    traced = trace_score(lambda s, b, h, q, kv: s + bias[kv] + doc[q], slots)
    assert format_expr(traced.expr) == "score + t1[kv_idx] + float32(t0[q_idx])"


def test_results_of_captured_tensors_are_captured() -> None:
    """What needs no traced value runs in torch, and its result is a slot."""
    bias, slots = torch.arange(6.0).view(2, 3), SlotTable()
    trace_score(lambda s, b, h, q, kv: s + (bias * 2).T[q, h], slots)
    torch.testing.assert_close(slots.tensors[0], (bias * 2).T)


def test_nested_reductions_have_different_variables() -> None:
    """A reduction inside the body of another one, made before it or inside it."""
    table = torch.zeros(4, 5)

    def mod(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        total = table[q].sum()
        return (table[kv] * total).sum()

    assert score_text(mod) == (
        "sum(t0[kv_idx, r1] * sum(t0[q_idx, r0] for r0 in range(5)) for r1 in range(5))"
    )


def test_locations_name_the_line_of_each_operation() -> None:
    """With locations, every node that is no leaf knows the first line that made it."""

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        causal = q >= kv
        near = q - kv < 4
        return causal & near

    traced = trace_mask(mask, SlotTable(), with_locations=True)
    assert {format_expr(e): where.source for e, where in traced.locations.items()} == {
        "q_idx >= kv_idx": "causal = q >= kv",
        "q_idx - kv_idx": "near = q - kv < 4",
        "q_idx - kv_idx < 4": "near = q - kv < 4",
        "(q_idx >= kv_idx) & (q_idx - kv_idx < 4)": "return causal & near",
    }
    location = traced.locations[traced.expr]
    assert str(location) == f"{__file__}:{mask.__code__.co_firstlineno + 3}"
    assert not trace_mask(mask, SlotTable()).locations


def test_location_reads_as_file_and_line() -> None:
    """The usual form, which editors understand."""
    assert str(Location("mods.py", 12, "return q >= kv")) == "mods.py:12"


def test_deep_functions_are_traced() -> None:
    """Thousands of operations do not meet the recursion limit."""

    def deep(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        for _ in range(5000):
            s = s + q
        return s

    expr = trace_score(deep, SlotTable(), with_locations=True).expr
    assert expr.dtype is DType.FLOAT32


def test_writes_to_tensors_made_inside_are_allowed() -> None:
    """A mod may build a small tensor of its own."""

    def mod(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        slopes = torch.zeros(4)
        slopes[1] = 2.0
        slopes += 1
        return s * slopes[h]

    slots = SlotTable()
    trace_score(mod, slots)
    assert slots.tensors[0].tolist() == [1.0, 3.0, 1.0, 1.0]


@pytest.mark.slow  # imports dynamo
def test_tracing_runs_inside_dynamo() -> None:
    """A mod is traced while torch.compile traces its caller, without a graph break."""
    doc = NAMES["doc"]

    def n_slots(x: torch.Tensor) -> torch.Tensor:
        slots = SlotTable()
        trace_mask(lambda b, h, q, kv: (doc[q] == doc[kv]) & (torch.where(q > kv, q, 1) < 5), slots)
        return x + len(slots.tensors)

    compiled = torch.compile(n_slots, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(())).item() == 1.0
