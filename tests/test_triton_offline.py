"""Triton kernels compiled for GPUs that are not here: what is in the binaries, and their cache."""

from __future__ import annotations

import ast
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cpu_kernels import program_of, spec_of

from attnc.errors import OfflineCompileError
from attnc.plan import Spec, Wanted
from attnc.render.names import KEYS, QUERIES
from attnc.runtime.assembly_loops import innermost_loops
from attnc.runtime.triton_binary import resources_of
from attnc.runtime.triton_compile import compile_offline, signature_of
from attnc.runtime.triton_sass import machine_loops
from attnc.stages import Inspection
from attnc.stages.kernels import sources_of
from attnc.target import GPU_TARGETS, GpuTarget

DOCUMENTS = torch.zeros(4096, dtype=torch.int32)
LENGTHS = torch.zeros(8, dtype=torch.int32)
SLOPES = torch.zeros(8)
TENSOR_CORE = {
    "sm_80": "mma.sync",
    "sm_90": "wgmma.mma_async",
    "sm_100": "tcgen05.mma",
    "gfx942": "v_mfma",
}


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 1024)


def documents(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (q_idx >= kv_idx) & (DOCUMENTS[q_idx] == DOCUMENTS[kv_idx])


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + SLOPES[h] * (kv_idx - q_idx)


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


MODS = {
    "causal": (causal, None),
    "window": (window, None),
    "documents": (documents, None),
    "alibi": (causal, alibi),
    "softcap": (causal, softcap),
}


def _marks(case: tuple[Any, ...], covering: set[Any], left_out: set[str]) -> list[Any]:
    """When a case of a grid runs: always if it is covering, by hand if what is named is left out."""
    if case in covering:
        return []
    return [pytest.mark.exhaustive if left_out & set(case) else pytest.mark.slow]


# Every mask, every machine, both widths, and what needs most registers on each machine.
COVERING = {
    ("sm_80", "documents", 128), ("sm_80", "softcap", 64),
    ("sm_90", "causal", 128), ("sm_90", "window", 64), ("sm_90", "softcap", 128),
    ("sm_100", "documents", 64), ("sm_100", "alibi", 128),
    ("gfx942", "softcap", 128), ("gfx942", "documents", 64), ("gfx942", "documents", 128),
}  # fmt: skip
CASES = [
    pytest.param(*case, marks=_marks(case, COVERING, {"alibi"}))
    for case in (
        (target, name, head_dim)
        for target in TENSOR_CORE
        for name in MODS
        for head_dim in (64, 128)
    )
]


def spec_for(name: str, head_dim: int) -> Spec:
    program = program_of(*MODS[name])
    return spec_of(program, dtype=torch.bfloat16, head_dim=head_dim)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path))


def packed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    same = DOCUMENTS[q_idx] == DOCUMENTS[kv_idx]
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 1024) & same & (kv_idx < LENGTHS[b])


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(
    ("target", "head_dim", "dtype"),
    [
        ("gfx942", 80, torch.bfloat16),
        ("gfx942", 128, torch.float16),
        ("gfx942", 256, torch.bfloat16),
        ("gfx942", 128, torch.float32),
        ("sm_80", 128, torch.bfloat16),
    ],
)
def test_tiles_that_branch_on_four_terms(target: str, head_dim: int, dtype: torch.dtype) -> None:
    """They keep their registers, and are shorter where terms hold."""
    spec = spec_of(program_of(packed, None, dtype), dtype=dtype, head_dim=head_dim)

    resources = resources_of(compile_offline(spec, GPU_TARGETS[target]))

    assert resources.spill_bytes == 0
    partial = next(loop for loop in resources.loops if loop.kind == "PARTIAL")
    assert partial.n_least_instructions < partial.n_instructions


# Of backward kernels: every machine, both widths and functions, and what needs most registers.
COVERING_BACKWARD = {
    ("sm_80", "documents", 128, QUERIES), ("sm_80", "softcap", 64, KEYS),
    ("sm_90", "window", 64, KEYS), ("sm_90", "softcap", 128, QUERIES),
    ("sm_100", "softcap", 128, KEYS), ("gfx942", "documents", 128, KEYS),
}  # fmt: skip
BACKWARD_CASES = [
    pytest.param(*case, marks=_marks(case, COVERING_BACKWARD, {"alibi", "window"}))
    for case in (
        (target, name, head_dim, function)
        for target in TENSOR_CORE
        for name in MODS
        for head_dim in (64, 128)
        for function in (QUERIES, KEYS)
    )
]

# Bytes that one program may take.
SHARED_MEMORY = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}


@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(
    ("target", "dtype", "head_dim"),
    [
        ("gfx942", torch.float64, 256),
        ("gfx942", torch.float32, 256),
        ("gfx942", torch.bfloat16, 512),
        ("sm_80", torch.float64, 256),
    ],
)
def test_wide_heads_fit_shared_memory(target: str, dtype: torch.dtype, head_dim: int) -> None:
    """Tiles shrink until a launch finds the shared memory that it asks for."""
    spec = spec_of(program_of(causal, None, dtype), dtype=dtype, head_dim=head_dim)

    binary = compile_offline(spec, GPU_TARGETS[target])

    assert 0 < binary.shared_bytes <= SHARED_MEMORY[target]


@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(("target", "name", "head_dim"), CASES)
def test_binaries_are_as_good_as_promised(target: str, name: str, head_dim: int) -> None:
    """No register spills; the loops run on the machine's own tensor cores and divide no integers;
    a FULL tile computes no mask; no warps share a row of scores, or compute the same one."""
    binary = compile_offline(spec_for(name, head_dim), GPU_TARGETS[target])

    resources = resources_of(binary)

    assert resources.spill_bytes == 0
    assert sorted(loop.kind for loop in resources.loops) == sorted(_expected_kinds(name))
    for loop in resources.loops:
        assert set(loop.tensor_core) == {TENSOR_CORE[target]}
        assert loop.n_integer_divisions == 0
        assert (loop.n_mask_operations == 0) == (loop.kind == "FULL")
    selects = {loop.kind: loop.n_selects for loop in resources.loops}
    # One element of the score tile takes one selection, wherever it is masked.
    assert selects["FULL"] < selects["PARTIAL"]
    layouts = re.findall(r"mf?ma<.*warpsPerCTA = \[(\d+), (\d+)\]", binary.texts["ttgir"])
    assert set(layouts) == (set() if target == "sm_100" else {(str(binary.n_warps), "1")})


@pytest.mark.usefixtures("cache_dir")
def test_the_softmax_takes_one_fused_operation_per_score() -> None:
    """In a FULL tile the scale and the subtraction of the maximum are one instruction of the
    machine; no register moves to memory."""
    binary = compile_offline(spec_for("causal", 64), GPU_TARGETS["sm_90"])

    loops = dict(zip(binary.loop_kinds, machine_loops(binary.binary), strict=True))

    n_scores = 128 * 128 // (32 * binary.n_warps)  # of one thread
    full = loops["FULL"].opcodes
    assert n_scores <= full["FFMA"] < 1.1 * n_scores
    assert n_scores <= full["MUFU"] < 1.1 * n_scores
    assert full["FMUL"] < n_scores  # the accumulator is half as wide as the tile of scores
    assert loops["FULL"].n_tensor_core > 0
    assert not any(loop.touches_stack for loop in loops.values())


@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(("target", "name", "head_dim", "function"), BACKWARD_CASES)
def test_backward_binaries_keep_their_registers(
    target: str, name: str, head_dim: int, function: str
) -> None:
    """No register spills; loops run on tensor cores; a FULL tile computes no mask."""
    spec = replace(spec_for(name, head_dim), gradients=Wanted(True, True, True))
    binary = compile_offline(spec, GPU_TARGETS[target], function)

    resources = resources_of(binary)

    assert resources.spill_bytes == 0
    assert resources.shared_bytes <= SHARED_MEMORY[target]
    assert set(binary.loop_kinds) == {"PARTIAL", "FULL"}
    for loop in resources.loops:
        assert loop.tensor_core
        assert loop.n_integer_divisions == 0
        assert (loop.n_mask_operations == 0) == (loop.kind == "FULL")


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", TENSOR_CORE)
def test_forward_binaries_of_float64(target: str, head_dim: int) -> None:
    """No register spills, with or without tensor cores for float64."""
    program = program_of(*MODS["documents"], torch.float64)
    spec = spec_of(program, dtype=torch.float64, head_dim=head_dim)

    assert resources_of(compile_offline(spec, GPU_TARGETS[target])).spill_bytes == 0


# Of them: rows as wide as registers allow, beside the incomplete tile, and against occupancy.
COVERING_WIDE = {
    ("sm_80", torch.float32, 128, QUERIES, "documents"),
    ("sm_90", torch.float32, 128, KEYS, "causal"),
}
WIDE_CASES = [
    pytest.param(*case, marks=_marks(case, COVERING_WIDE, {"causal"}))
    for case in (
        (target, dtype, head_dim, function, name)
        for target in TENSOR_CORE
        for dtype, head_dim in ((torch.float32, 64), (torch.float32, 128), (torch.bfloat16, 256))
        for function in (QUERIES, KEYS)
        for name in ("causal", "softcap", "documents")
    )
]


@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(("target", "dtype", "head_dim", "function", "name"), WIDE_CASES)
def test_backward_binaries_of_float32_and_of_wide_heads(
    target: str, dtype: torch.dtype, head_dim: int, function: str, name: str
) -> None:
    """None spills, although a row of 128 float32 is half of what a thread of NVIDIA has."""
    spec = spec_of(program_of(*MODS[name]), dtype=dtype, head_dim=head_dim)
    wanted = replace(spec, gradients=Wanted(True, True, True))

    resources = resources_of(compile_offline(wanted, GPU_TARGETS[target], function))

    assert resources.spill_bytes == 0
    assert resources.shared_bytes <= SHARED_MEMORY[target]


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
@pytest.mark.parametrize(
    ("name", "head_dim"), [("softcap", 64), ("documents", 64), ("documents", 128), ("window", 128)]
)
@pytest.mark.parametrize("target", TENSOR_CORE)
def test_forward_binaries_of_float32(target: str, name: str, head_dim: int) -> None:
    """No register spills, although a row of q is up to half of what a thread has."""
    spec = spec_of(program_of(*MODS[name]), dtype=torch.float32, head_dim=head_dim)

    assert resources_of(compile_offline(spec, GPU_TARGETS[target])).spill_bytes == 0


def _expected_kinds(name: str) -> tuple[str, ...]:
    return ("FULL", *3 * ("PARTIAL",)) if name == "window" else ("FULL", "PARTIAL")


@pytest.mark.usefixtures("cache_dir")
def test_division_in_a_loop_is_found() -> None:
    """The reader sees a division by a number that is only known at run time."""
    divisors = torch.ones(8, dtype=torch.int32)

    def divides(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx % divisors[h]) >= (kv_idx % divisors[h])

    spec = spec_of(program_of(divides, None), dtype=torch.bfloat16, head_dim=64)

    loops = resources_of(compile_offline(spec, GPU_TARGETS["sm_90"])).loops

    divisions = {loop.kind: loop.n_integer_divisions for loop in loops}
    assert divisions["PARTIAL"] > 0
    assert divisions["FULL"] == 0


def test_innermost_loops_are_told_from_outer_ones() -> None:
    """Of nested loops with tensor-core instructions only the inner one counts."""
    text = """$L__BB0_1:
mma.sync.a;
$L__BB0_2:
mma.sync.b;
@%p1 bra $L__BB0_2;
@%p2 bra $L__BB0_1;
$L__BB0_3:
add.s32;
bra.uni $L__BB0_3;"""

    (loop,) = innermost_loops(text.splitlines(), lambda line: "mma" in line)

    assert loop.lines == ["$L__BB0_2:", "mma.sync.b;", "@%p1 bra $L__BB0_2;"]


def test_ways_through_a_loop_that_branches() -> None:
    """A branch back from a block that lies behind the loop's end makes no loop of its own; the
    ways through an iteration may be of different lengths."""
    text = """bra.uni $L__BB0_2;
$L__BB0_1:
add.s32 a;
@%p1 bra $L__BB0_2;
bra.uni $L__BB0_4;
$L__BB0_2:
mma.sync.a;
@%p2 bra $L__BB0_1;
$L__BB0_3:
add.s32 b;
add.s32 c;
bra.uni $L__BB0_1;
$L__BB0_4:
ret;"""

    (loop,) = innermost_loops(text.splitlines(), lambda line: "mma" in line)

    assert loop.longest(len) - loop.shortest(len) == len(
        ["$L__BB0_3:", "add.s32 b;", "add.s32 c;", "bra.uni $L__BB0_1;"]
    )
    assert "ret;" not in loop.lines


def test_loops_come_in_the_order_they_run_in() -> None:
    """Although a compiler puts the blocks of a later one first."""
    text = """bra.uni $L__BB0_2;
$L__BB0_1:
mma.sync.b;
@%p1 bra $L__BB0_1;
ret;
$L__BB0_2:
mma.sync.a;
@%p2 bra $L__BB0_2;
bra.uni $L__BB0_1;"""

    loops = innermost_loops(text.splitlines(), lambda line: "mma" in line)

    assert [loop.lines[1] for loop in loops] == ["mma.sync.a;", "mma.sync.b;"]


COMPILE = """
import pickle, sys
from attnc.runtime import cache
from attnc.runtime.triton_compile import compile_offline, signature_of
from attnc.target import GPU_TARGETS
spec = pickle.loads(bytes.fromhex(sys.argv[1]))
binary = compile_offline(spec, GPU_TARGETS["sm_90"])
print(len(binary.binary.read_bytes()), cache.n_builds())
"""
# An import of Triton, and a start of its compiler, would raise.
COMPILE_WITHOUT_TRITON = """
import subprocess, sys
sys.modules["triton"] = None
subprocess.run = None
"""


def in_new_process(code: str) -> tuple[int, int]:
    """Size of the binary, and number of kernels built, in a new process."""
    spec = pickle.dumps(spec_for("causal", 64)).hex()
    command = [sys.executable, "-c", code, spec]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    size, n_builds = map(int, result.stdout.split())
    return size, n_builds


@pytest.mark.usefixtures("cache_dir")
def test_a_second_process_compiles_nothing() -> None:
    """Sixteen processes that ask at once compile it once; a later one needs no compiler at all."""
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(in_new_process, [COMPILE] * 16))
    second = in_new_process(COMPILE_WITHOUT_TRITON + COMPILE)

    assert sum(n_builds for _, n_builds in first) == 1
    assert {binary for binary, _ in first} == {first[0][0]}
    assert second == (first[0][0], 0)


LEARNED = {
    "uniform": torch.zeros(2),
    "row": torch.zeros(2, 64),
    "column": torch.zeros(2, 64, dtype=torch.float64),
    "difference": torch.zeros(2, 127, dtype=torch.bfloat16),
    "element": torch.zeros(2, 64, 64),
    "embedding": torch.zeros(64, 4),
}
READS = {
    "uniform": lambda t, h, q, k: t[h] * (k - q),
    "row": lambda t, h, q, k: t[h, q],
    "column": lambda t, h, q, k: t[h, k],
    "difference": lambda t, h, q, k: t[h, k - q + 63],
    "element": lambda t, h, q, k: t[h, q, k],
    "embedding": lambda t, h, q, k: (t[q] * t[k]).sum(-1),
}


def learned(*names: str) -> Inspection:
    """A score that captures tensors which train, for a GPU."""
    tensors = {name: LEARNED[name].clone().requires_grad_() for name in names}

    def score_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        for name in names:
            score = score + READS[name](tensors[name], h, q_idx, kv_idx)
        return score

    return Inspection.of(score_mod, shape=(1, 2, 64, 64, 16), target="gfx942")


@pytest.mark.parametrize("names", [*((name,) for name in READS), tuple(READS)], ids="-".join)
def test_every_argument_has_a_type(names: tuple[str, ...]) -> None:
    """Those of the kernels for gradients of captured tensors too, however these are read."""
    inspection = learned(*names)
    for source in sources_of(inspection, inspection.target, "all"):
        types, ones, _ = signature_of(source.plan)
        kernels = source.functions().values()
        functions = [f for f in ast.parse(source.text).body if isinstance(f, ast.FunctionDef)]
        arguments = {a.arg for f in functions if f.name in kernels for a in f.args.args}
        assert len(arguments) > 10
        assert arguments <= {*types, *ones}


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
def test_kernels_of_learned_tensors_compile() -> None:
    """Each way of summing, in one backward: its resources can be told without a GPU."""
    (stage,) = learned(*READS).stages(["resources"])

    names = [kernel["name"] for kernel in stage.data["kernels"]]
    assert names[:4] == ["forward", "delta", "dq", "dkdv"]
    assert sum(name.startswith("elements") for name in names) == 4


@pytest.mark.usefixtures("cache_dir")
def test_what_triton_says_is_reported() -> None:
    """A machine that Triton does not know is an error with the compiler's words."""
    with pytest.raises(OfflineCompileError, match=r"(?s)the kernel for gfx1\..*\n.*ValueError"):
        compile_offline(spec_for("causal", 64), GpuTarget("hip", "gfx1", 64))


INTERPRET = """
import pickle, sys
from dataclasses import replace
from attnc.runtime.triton import load_triton_kernel
from attnc.target import INTERPRETER
load_triton_kernel(replace(pickle.loads(bytes.fromhex(sys.argv[1])), target=INTERPRETER))
"""


@pytest.mark.usefixtures("cache_dir")
def test_the_interpreter_must_be_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TRITON_INTERPRET a kernel for CPU tensors is an error that says what to set."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    spec = pickle.dumps(spec_for("causal", 64)).hex()
    command = [sys.executable, "-c", INTERPRET, spec]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.stderr.splitlines()[-1] == (
        "attnc.errors.InterpreterNotActiveError: A Triton kernel was asked for on CPU tensors, but "
        "Triton was imported without its interpreter. Set TRITON_INTERPRET=1 in the environment "
        "before Python starts."
    )
