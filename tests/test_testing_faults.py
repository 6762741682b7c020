"""Faults put into generated C++ on purpose: a check finds each, by the law that is about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnc.testing import available_backends

#: What is checked with the fault (pattern, replacement) in all its kernels, in another process:
#: wrong kernels stay in memory.
CHECKED = """
import json, re, sys, torch
import attnc.render.cpp
from attnc.errors import CheckFailedError
from attnc.runtime import cpu
from attnc.testing import check

score_or_mask, options, pattern, replacement = json.loads(sys.argv[1])
cpu.OPTIMIZATION = "-O0"
n_found = 0
for name in ("render", "render_many"):
    def wrong(plans, right=getattr(attnc.render.cpp, name)):
        global n_found
        text, n = re.subn(pattern, replacement, right(plans))
        n_found += n
        return text
    setattr(attnc.render.cpp, name, wrong)
try:
    check(eval(score_or_mask), backends=["cpu"], **options)
except CheckFailedError as error:
    print(*(law.law for law in error.fields["report"].laws if law.is_broken))
assert n_found
"""
WINDOW = "lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < 33)"
SLOPES = "lambda score, b, h, q_idx, kv_idx: score + h * (q_idx - kv_idx)"
#: By what is wrong: the function, options of check, the fault, the law.
FAULTS = {
    "rows beyond the keys": (
        *(WINDOW, {}, r"if \(n_columns < block_n\) \{", "if (false) {"),
        "forward",
    ),
    "empty rows": (WINDOW, {}, r"sum == 0 \? real\(0\) : 1 / sum", "1 / sum", "forward"),
    "truncated outputs": (
        *(WINDOW, {"dtypes": ["bfloat16"]}),
        *(r"\(bits \+ 0x7fffu \+ \(\(bits >> 16\) & 1u\)\) >> 16", "bits >> 16"),
        "rounding",
    ),
    "maxima": (WINDOW, {}, r"\[at\] = max;", "[at] = max + 1;", "empty-rows"),
    "heads of few queries": (
        *(SLOPES, {}),
        r"item.h \+ i / item.n_queries, q = item.q_start \+ i % item.n_queries",
        "item.h + i % item.n_heads, q = item.q_start + i / item.n_heads",
        "forward",
    ),
    "strides of the gradient of out": (
        *(WINDOW, {}, r"grad_out.stride, grad_out.width", "1, grad_out.width"),
        "gradients",
    ),
    "gradient of the log-sum-exp": (
        *(WINDOW, {}, r"grad_lse \? delta - grad_lse\[first \+ i\] : delta", "delta"),
        "gradients",
    ),
}


@pytest.mark.slow
@pytest.mark.skipif("cpu" not in available_backends(), reason="needs a C++ compiler")
@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_a_wrong_kernel(fault: str, tmp_path: Path) -> None:
    *given, law = FAULTS[fault]

    run = subprocess.run(
        [sys.executable, "-c", CHECKED, json.dumps(given)],
        env={**os.environ, "ATTNC_CACHE_DIR": str(tmp_path / "kernels")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout.split() == [law], run.stdout + run.stderr
