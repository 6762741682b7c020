"""Forty masks and scores of published systems, traced and compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attnc.evaluate import evaluate
from attnc.parser import parse_expr
from attnc.printer import format_program
from attnc.trace import SlotTable, trace_mask, trace_score

N_BATCH, N_HEADS, N_TOKENS = 2, 3, 24

_SETUP = """
import math, torch
generator = torch.Generator().manual_seed(0)
def rand(*shape): return torch.randn(*shape, generator=generator)
def ints(high, *shape):
    return torch.randint(0, high, shape, generator=generator, dtype=torch.int32)
"""

#: name -> (text defining captures, then `mask` and or `score`)
SYSTEMS: dict[str, str] = {
    "FNA and GNA": """
H_, W_, K, D, ST = 4, 6, 2, 2, 1
def na1d(q, kv, L):
    g, qi, n = q % D, q // D, (L - q % D + D - 1) // D
    lead = torch.minimum((qi // ST) * ST + ST // 2, n - 1)
    lo = torch.minimum((lead - K // 2).clamp(min=0), n - K)
    return (kv % D == g) & (kv // D >= lo) & (kv // D < lo + K)
def mask(b, h, q, kv): return na1d(q // W_, kv // W_, H_) & na1d(q % W_, kv % W_, W_)
""",
    "FreeSwim": """
T_, H_, W_, DH, DW = 2, 3, 4, 1, 1
def axis(q, kv, L, d):
    return (kv <= q + d + (d - q).clamp(min=0)) & (kv >= q - d - (d + q - L + 1).clamp(min=0))
def mask(b, h, q, kv):
    q, kv = q % (H_ * W_), kv % (H_ * W_)
    return axis(q // W_, kv // W_, H_, DH) & axis(q % W_, kv % W_, W_, DW)
""",
    "Swin": """
H_, W_, M, S = 4, 6, 2, 1
rpb = rand(3, (2 * M - 1) ** 2)
def roll(i): return (i // W_ + H_ - S) % H_, (i % W_ + W_ - S) % W_
def region(i):
    y, x = roll(i)
    return (y // M) * 64 + (x // M) * 8 + (y >= H_ - S).int() * 2 + (x >= W_ - S).int()
def mask(b, h, q, kv): return region(q) == region(kv)
def score(s, b, h, q, kv):
    (yq, xq), (yk, xk) = roll(q), roll(kv)
    return s + rpb[h, ((yq % M - yk % M) + M - 1) * (2 * M - 1) + (xq % M - xk % M) + M - 1]
""",
    "PowerAttention": """
BLK, WIN, SINK = 2, 4, 2
def mask(b, h, q, kv):
    d = q // BLK - kv // BLK
    return (kv <= q) & (((q - kv) < WIN) | (kv < SINK) | ((d & (d - 1)) == 0))
""",
    "S2-Attention": """
BLK, LOCAL, STRIDE, STEP = 4, 2, 4, 1
def mask(b, h, q, kv):
    qb, kb = q // BLK, kv // BLK
    return (kv <= q) & (((qb - kb) < LOCAL) | ((kb + h * STEP + 1) % STRIDE == 0))
""",
    "MoA spans": """
span, sink = ints(12, 3), ints(4, 3)
def mask(b, h, q, kv): return (kv <= q) & ((kv < sink[h]) | (q - kv < span[h]))
""",
    "MW-MAE with global heads": """
win = torch.tensor([2, 5, 0], dtype=torch.int32)
def mask(b, h, q, kv):
    w = win[h]; w1 = torch.maximum(w, torch.ones_like(w))
    return (w == 0) | (q // w1 == kv // w1)
""",
    "Perceiver AR": """
def mask(b, h, q, kv): return kv <= q + (24 - 8)
""",
    "BAMM": """
cond = rand(2, 24) > 0
def mask(b, h, q, kv): return cond[b, kv] | ((kv <= q) & ~cond[b, q])
""",
    "M2T": """
group = ints(5, 24)
def mask(b, h, q, kv): return group[kv] < group[q] + 1
""",
    "Mask2Former": """
pred = rand(2, 24, 24) > 1
empty = ~pred.any(-1)
def mask(b, h, q, kv): return pred[b, q, kv] | empty[b, q]
""",
    "MasaCtrl": """
fg_t, fg_s = rand(2, 24) > 0, rand(2, 24) > 0
def mask(b, h, q, kv): return fg_t[b, q] == fg_s[b, kv]
""",
    "Bounded Attention": """
bits = ints(16, 2, 24)
def mask(b, h, q, kv):
    x, y = bits[b, q], bits[b, kv]
    return (x == 0) | (y == 0) | ((x & y) != 0)
""",
    "SASA": """
SASA_HEAD, scenes = 2, ints(8, 2, 24)
def mask(b, h, q, kv):
    return (h != SASA_HEAD) | ((scenes[b, q] & scenes[b, kv]) != 0) | (q == kv)
""",
    "ROMTrack": """
T_ = 6
def inh(i): return (i >= T_) & (i < 2 * T_)
def mask(b, h, q, kv): return ~inh(q) | inh(kv)
""",
    "FaceFormer": """
P, R, slope = 8, 2, rand(3)
def score(s, b, h, q, kv): return s - slope[h] * ((q - kv) // P)
def mask(b, h, q, kv): return kv // R == q
""",
    "Entropy-ABF": """
C, LAYER = 16, 5
def score(s, b, h, q, kv):
    if LAYER < 2: return s
    return s * torch.clamp(torch.log(q + 1.0) / math.log(C), min=1.0)
def mask(b, h, q, kv): return kv <= q
""",
    "Parallel context encoding": """
LAST, seg = 5, ints(6, 2, 24)
def mask(b, h, q, kv):
    s, t = seg[b, q], seg[b, kv]
    return (kv <= q) & ((t == 0) | (s == t) | (s == LAST))
""",
    "MoBA by block": """
BLK = 8
keep = rand(2, 3, 24, 3) > 0
def mask(b, h, q, kv): return keep[b, h, q, kv // BLK] & (kv <= q)
""",
    "Mask-Attention-Free Transformer": """
tq, tk, rel = rand(2, 3, 24, 3, 4), rand(2, 3, 24, 3, 4), ints(4, 2, 3, 24, 24)
def score(s, b, h, q, kv):
    rx, ry, rz = rel[b, 0, q, kv], rel[b, 1, q, kv], rel[b, 2, q, kv]
    s = s + tq[b, h, q, 0, rx] + tq[b, h, q, 1, ry] + tq[b, h, q, 2, rz]
    return s + tk[b, h, kv, 0, rx] + tk[b, h, kv, 1, ry] + tk[b, h, kv, 2, rz]
""",
    "Fast-dLLM v2": """
N, BS = 12, 3
def mask(b, h, q, kv):
    qc, kc = q >= N, kv >= N
    qb, kb = (q % N) // BS, (kv % N) // BS
    return ((qb == kb) & (qc == kc)) | (kc & ~qc & (qb > kb)) | (kc & qc & (qb >= kb))
""",
    "4Real-Video-V2": """
P, T = 3, 4
def mask(b, h, q, kv):
    qf, kf = q // P, kv // P
    return (qf // T == kf // T) | (qf % T == kf % T)
""",
    "CLEAR": """
L, X, R = 4, 5, 2
def mask(b, h, q, kv):
    dy, dx = (q - L) // X - (kv - L) // X, (q - L) % X - (kv - L) % X
    return (q < L) | (kv < L) | (dy * dy + dx * dx < R * R)
""",
    "Sparse VideoGen": """
L, P, F, W, kind = 4, 5, 4, 2, ints(2, 3)
def mask(b, h, q, kv):
    spatial = (q - kv).abs() < W * P
    temporal = ((q - L) % P - (kv - L) % P).abs() < W * P // F
    return (q < L) | (kv < L) | torch.where(kind[h] == 0, spatial, temporal)
""",
    "NATTEN": """
T, Y, X, WT, WY, WX, ST, SY, SX = 2, 3, 4, 1, 2, 3, 1, 1, 2
def axis(q, kv, n, w, s):
    c = ((q // s) * s + s // 2).clamp(max=n - 1).clamp(w // 2, n - 1 - (w - 1) // 2)
    return (c - kv <= w // 2) & (kv - c <= (w - 1) // 2)
def mask(b, h, q, kv):
    return (axis(q // (Y * X), kv // (Y * X), T, WT, ST) & axis(q // X % Y, kv // X % Y, Y, WY, SY)
            & axis(q % X, kv % X, X, WX, SX))
""",
    "HaloNet": """
X, B, HALO = 6, 2, 1
def mask(b, h, q, kv):
    by, bx, y, x = q // X // B * B, q % X // B * B, kv // X, kv % X
    return (y >= by - HALO) & (y < by + B + HALO) & (x >= bx - HALO) & (x < bx + B + HALO)
""",
    "Inf-DiT": """
X, B = 6, 2
def mask(b, h, q, kv):
    dy, dx = q // X // B - kv // X // B, q % X // B - kv % X // B
    return (dy >= 0) & (dy <= 1) & (dx >= 0) & (dx <= 1)
""",
    "SeNer": """
W, N, N_TRAIN = 3, 24, 16
def mask(b, h, q, kv): return (q == 0) | (kv == 0) | ((q - kv).abs() <= W)
def score(s, b, h, q, kv): return torch.where(q == 0, s * (math.log(N) / math.log(N_TRAIN)), s)
""",
    "Titans": """
NP, W = 4, 6
def mask(b, h, q, kv): return (kv < NP) | ((q >= kv) & (q - kv < W))
""",
    "MW-MAE": """
win = torch.tensor([2, 5, 10])
def mask(b, h, q, kv): return q // win[h] == kv // win[h]
""",
    "MoA": """
SINK, N, alpha, beta = 2, 24, rand(3).abs() * 4, rand(3).abs() / 8
def mask(b, h, q, kv): return (q >= kv) & ((kv < SINK) | (q - kv < alpha[h] + beta[h] * N))
""",
    "PINE": """
seg = ints(3, 24)
def mask(b, h, q, kv):
    return (q >= kv) | ((seg[q] > 0) & (seg[kv] > 0) & (seg[q] != seg[kv]))
""",
    "IR-Diffusion": """
subj = ints(3, 2, 24)
def mask(b, h, q, kv):
    return (subj[b, q] == 0) | (subj[b, kv] == 0) | (subj[b, q] == subj[b, kv])
""",
    "FreeCustom": """
wgt, keep = rand(24), rand(24) > 0
def score(s, b, h, q, kv): return s + wgt[kv]
def mask(b, h, q, kv): return keep[kv]
""",
    "SPAD": """
P, X, TAU, F = 12, 4, 0.7, rand(2, 2, 2, 3, 3)
def mask(b, h, q, kv):
    vq, vk, x, y, xk, yk = q // P, kv // P, q % X, q % P // X, kv % X, kv % P // X
    l = [F[b, vq, vk, i, 0] * x + F[b, vq, vk, i, 1] * y + F[b, vq, vk, i, 2] for i in range(3)]
    return (vq == vk) | ((l[0] * xk + l[1] * yk + l[2]) ** 2 <= TAU**2 * (l[0] ** 2 + l[1] ** 2))
""",
    "FaceFormer bias": """
PERIOD, slope = 5, rand(3)
def score(s, b, h, q, kv): return s - slope[h] * ((q - kv) // PERIOD)
""",
    "Attention on the Sphere": """
NLON, COS_R, colat, log_w = 6, 0.5, torch.linspace(0.2, 3.0, 4), rand(4)
def score(s, b, h, q, kv): return s + log_w[kv // NLON]
def mask(b, h, q, kv):
    a, c, dp = colat[q // NLON], colat[kv // NLON], (q % NLON - kv % NLON) * (2 * math.pi / NLON)
    return a.cos() * c.cos() + a.sin() * c.sin() * dp.cos() >= COS_R
""",
    "ConViT": """
X, w, c = 6, rand(3, 3), rand(3)
def score(s, b, h, q, kv):
    dx, dy = kv % X - q % X, kv // X - q // X
    return w[h, 0] * dx + w[h, 1] * dy + w[h, 2] * (dx * dx + dy * dy) + c[h]
""",
    "DMA": """
bias, thr = rand(2, 3, 24), rand(2, 3, 24)
def score(s, b, h, q, kv): return s + bias[b, h, kv]
def mask(b, h, q, kv): return (q >= kv) & (bias[b, h, kv] >= thr[b, h, q])
""",
    "MoBA": """
C, sel = 4, rand(2, 3, 24, 6) > 0
def mask(b, h, q, kv): return (q >= kv) & sel[b, h, q, kv // C]
""",
}


def test_there_are_forty() -> None:
    """All runnable examples of the survey are here."""
    assert len(SYSTEMS) == 40


@pytest.mark.parametrize("name", SYSTEMS)
def test_published_mods_are_traced_as_torch_computes_them(name: str) -> None:
    """Every element of mask and score equals torch's; the text form gives the expression back."""
    namespace: dict[str, Any] = {}
    exec(_SETUP + SYSTEMS[name], namespace)  # noqa: S102
    sizes = (N_BATCH, N_HEADS, N_TOKENS, N_TOKENS)
    indices = [
        torch.arange(size, dtype=torch.int32).reshape([-1 if i == j else 1 for j in range(4)])
        for i, size in enumerate(sizes)
    ]
    score = torch.randn(sizes, generator=torch.Generator().manual_seed(1))
    names = dict(zip(("b", "h", "q_idx", "kv_idx"), indices, strict=True))
    mods: list[tuple[Callable[..., Any], Callable[..., Any], tuple[torch.Tensor, ...]]] = []
    if "mask" in namespace:
        mods.append((trace_mask, namespace["mask"], ()))
    if "score" in namespace:
        mods.append((trace_score, namespace["score"], (score,)))
    assert mods

    for trace, mod, first in mods:
        slots = SlotTable()
        expr = trace(mod, slots).expr
        actual = evaluate(expr, **names, score=score, tensors=slots.tensors)
        expected = mod(*first, *indices)
        assert actual.dtype is expected.dtype
        torch.testing.assert_close(actual.expand(sizes), expected.expand(sizes))
        assert parse_expr(format_program(expr)) is expr
