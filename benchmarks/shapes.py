"""Sizes off the main table: short sequences, one head, head dims, decoding with GQA, fp16."""

from __future__ import annotations

from benchmarks.cases import Problem


def problems() -> list[Problem]:
    """One each per shape, dtype and, where it matters, mask."""
    short = [
        Problem("causal", dtype, 64, length, length, batch=8, heads=16, kv_heads=16)
        for dtype in ("float32", "bfloat16")
        for length in (64, 128, 256)
    ]
    long = [
        Problem("causal", dtype, 64, 16384, 16384, heads=1, kv_heads=1)
        for dtype in ("float32", "bfloat16")
    ]
    dims = [
        Problem("causal", dtype, head_dim, 2048, 2048)
        for dtype in ("float32", "bfloat16")
        for head_dim in (32, 80, 256)
    ]
    decode = [
        Problem("full", dtype, 128, 1, 4096, heads=32, kv_heads=4)
        for dtype in ("float32", "bfloat16")
    ]
    half = [Problem(case, "float16", 64, 2048, 2048) for case in ("full", "causal", "window 256")]
    return [*short, *long, *dims, *decode, *half]
