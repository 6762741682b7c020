"""How far a kernel may be from the float64 oracle, derived from dtypes and sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from attnc.runtime.reference import ReferenceResult


@dataclass(frozen=True)
class Tolerance:
    """Largest absolute error of ``out`` and ``lse``, to which ``relative`` times the value is added."""

    out: float
    lse: float
    relative: float


def tolerance_of(
    dtype: torch.dtype,
    *,
    head_dim: int = 128,
    n_keys: int = 1024,
    score_scale: float = 8.0,
    value_scale: float = 4.0,
    is_single: bool = False,
) -> Tolerance:
    """Error that an honest kernel for inputs of ``dtype`` stays below.

    Kernels accumulate in float32 (float64 for float64), with rounding error ``u``. A sum of n
    terms is off by about ``u * sqrt(n)`` relative to its largest terms, so a score by
    ``d = u * (sqrt(head_dim) + 16) * score_scale``, where 16 stands for the roundings in scale,
    score_mod and exponent. A weight exp(s - m) is then off by ``2 d`` relatively, its sum by
    another ``u * sqrt(n_keys)``. The weights are rounded to the input dtype before they meet the
    values (half precision on matrix units), and so is the output.

    Args:
        dtype: Of q, k and v.
        head_dim, n_keys: Lengths of the two reductions.
        score_scale: Largest absolute score, before or after the score_mod.
        value_scale: Largest absolute element of v.
        is_single: Scores are computed in float32 for float64 inputs too, as from captured float32.
    """
    unit = 2.0**-53 if dtype == torch.float64 and not is_single else 2.0**-24
    storage = torch.finfo(dtype).eps
    score_error = unit * (math.sqrt(head_dim) + 16) * max(1.0, score_scale)
    weight_error = 4 * score_error + 2 * unit * math.sqrt(n_keys)
    return Tolerance(
        out=value_scale * (2 * weight_error + storage),
        lse=2 * weight_error,
        relative=storage,
    )


def assert_close_to_reference(
    out: torch.Tensor,
    lse: torch.Tensor | None,
    reference: ReferenceResult,
    dtype: torch.dtype,
    *,
    head_dim: int = 128,
    n_keys: int = 1024,
    score_scale: float = 8.0,
    value_scale: float = 4.0,
    is_single: bool = False,
    max_scores: torch.Tensor | None = None,
) -> None:
    """Passes if ``out``, ``lse`` and ``max_scores`` equal the oracle's, as near as rounding allows.

    Rows without a visible key must be exact: out 0 and lse -inf, and no other lse may be -inf.
    NaN and inf must stand where the oracle has them.

    Args:
        out: (B, Hq, n_queries, value_dim).
        lse: (B, Hq, n_queries), or None.
        reference: What the oracle gave: dense attention in float64.
        dtype, head_dim, n_keys, score_scale, value_scale, is_single: As in ``tolerance_of``.
        max_scores: (B, Hq, n_queries), or None.

    Raises:
        AssertionError: with the place and size of the largest difference.
    """
    finite = reference.max_scores[reference.max_scores.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = tolerance_of(
        dtype,
        head_dim=head_dim,
        n_keys=n_keys,
        score_scale=max(score_scale, largest),
        value_scale=value_scale,
        is_single=is_single,
    )
    assert out.dtype == dtype, f"out is {out.dtype}, the inputs are {dtype}"
    _assert_close("out", out, reference.out, tolerance.out, tolerance.relative)
    is_empty = reference.lse == -math.inf
    stray = is_empty & (out.to(reference.out.device) != 0).any(dim=-1)
    assert not bool(stray.any()), f"out is not 0 in {_place(stray)}, which sees no key"
    if lse is not None:
        _assert_close("lse", lse, reference.lse, tolerance.lse, 2.0**-23)
    if max_scores is not None:
        name = "the largest score"
        _assert_close(name, max_scores, reference.max_scores, tolerance.lse, 2.0**-23)


def _assert_close(
    name: str, actual: torch.Tensor, expected: torch.Tensor, absolute: float, relative: float
) -> None:
    assert actual.shape == expected.shape, (
        f"{name} has shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    )
    if actual.numel() == 0:
        return
    values = actual.to(expected.device, torch.float64)
    is_same = (values == expected) | (values.isnan() & expected.isnan())
    error = torch.where(is_same, 0.0, (values - expected).abs().nan_to_num(math.inf, math.inf))
    limit = absolute + relative * expected.abs().nan_to_num(0.0, 0.0, 0.0)
    excess = error / limit
    if bool((excess <= 1).all()):
        return
    worst = excess == excess.max()
    place = tuple(worst.nonzero()[0].tolist())
    raise AssertionError(
        f"{name}{list(place)} is {float(values[place]):.9g}, the reference "
        f"{float(expected[place]):.9g}; allowed is a difference of {float(limit[place]):.3g} "
        f"({int((excess > 1).sum())} of {excess.numel()} elements differ by more)"
    )


def _place(where: torch.Tensor) -> str:
    b, h, q_idx = where.nonzero()[0].tolist()
    return f"row (b={b}, h={h}, q_idx={q_idx})"
