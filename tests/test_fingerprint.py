"""What the digest of the generator covers: all code that a kernel's source comes from."""

from __future__ import annotations

import subprocess
import sys

from attnc.runtime.fingerprint import GENERATING

# Expressions are read from text, since tracing is no part of what a digest must cover.
_GENERATE = """
import sys
import attnc
BEFORE = set(sys.modules)
from attnc.ir import SlotType
from attnc.lift import lift
from attnc.parser import parse_expr
from attnc.plan import Spec, Wanted, make_plan
from attnc.render import cpp, triton
from attnc.simplify import simplify
from attnc.target import GPU_TARGETS, CpuTarget

DOCUMENTS = "t0: int32\\n(t0[q_idx] == t0[kv_idx]) & (q_idx >= kv_idx)"
MASKS = ("(q_idx >= kv_idx) & (q_idx - kv_idx < 100)", DOCUMENTS)
for target in (CpuTarget("avx2"), GPU_TARGETS["sm_90"]):
    for text in MASKS:
        for gradients in (None, Wanted(True, True, True, (1,))):
            mask = parse_expr(text)
            score = parse_expr("t1: float32\\n(score * 2.0) + t1[h, q_idx - kv_idx]")
            lifted = lift((simplify(mask), simplify(score)))
            slots = (SlotType("int32", 1), SlotType("float32", 2))
            spec = Spec(
                mask=lifted.exprs[0], score=lifted.exprs[1], slots=slots, params=lifted.dtypes,
                dtype="float32", head_dim=64, value_dim=64, target=target, gradients=gradients,
            )
            (cpp if isinstance(target, CpuTarget) else triton).render(make_plan(spec))
print(*(name for name in sys.modules.keys() - BEFORE if name.startswith("attnc.")))
"""
# These tell what is wrong with a call, or hold templates, which the digest reads by their suffix.
_NOT_GENERATING = {"errors", "codegen_templates"}


def test_a_change_of_any_code_that_makes_kernels_makes_other_kernels() -> None:
    """Else a cache would go on giving kernels of the code as it was."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _GENERATE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = [name.split(".") for name in done.stdout.split()]
    rooms = {parts[1] for parts in names if len(parts) > 2} - _NOT_GENERATING
    assert "plan" in rooms
    assert rooms <= set(GENERATING)
