"""``attnc inspect``: every stage with its header, as JSON, and two functions compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import invoke
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.errors import InspectionOptionError, ToolMissingError
from attnc.library import ENTRIES
from attnc.runtime.disassembly import MachineFunction, disassembled, functions_in
from attnc.runtime.occupancy import LIMITS, occupancy_of
from attnc.runtime.triton_sass import nvidia_tool
from attnc.stages import STAGES, Inspection
from attnc.stages.difference import difference_of
from attnc.stages.kernels import sources_of
from attnc.target import GPU_TARGETS

CAUSAL = "lambda b, h, q, kv: q >= kv"
GPU_KERNELS = ["forward", "delta", "dq", "dkdv"]
SMALL = "1,1,256,256,32"
READABLE = [name for name in STAGES if name not in ("ttir", "ptx", "sass", "assembly", "resources")]
slopes = torch.tensor([0.5, 0.25], requires_grad=True)


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + slopes[h] * (kv_idx - q_idx)


def as_json(*arguments: str) -> Any:
    result = invoke("inspect", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What targets add to the path is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("name", READABLE)
def test_header_says_what_the_reader_sees(name: str) -> None:
    """Stage, function, shape, dtype and machine, in a comment where the text is source."""
    machine = ["--target", "sm_90"] if name == "blocks" else []  # no times to measure
    sizes = ["--shape", "2,3,40,50,32", "--pass", "forward"]

    result = invoke("inspect", "--expr", CAUSAL, "--stage", name, *machine, *sizes)

    assert result.exit_code == 0, result.output
    title, summary = result.stdout.splitlines()[:2]
    dtype = "bfloat16" if name in ("blocks", "triton") else "float32"
    assert STAGES[name].title in title
    for part in ("B=2, H=3, Lq=40, Lk=50, D=32", dtype):
        assert part in summary
    if STAGES[name].language == "cpp":
        assert title.startswith("// ")
        assert summary.startswith("// ")


def test_stages_of_a_function_have_json() -> None:
    """Every readable stage: what it is, its text, and the numbers in it, of both passes."""
    for name in READABLE:
        data = as_json("--expr", CAUSAL, "--stage", name, "--shape", "1,2,300,300,64")

        assert data["stage"] == name
        assert data["text"]
        assert data["shape"] == [1, 2, 300, 300, 64]
        kernels = [kernel["name"] for kernel in data.get("kernels", [])]
        assert kernels == (["forward", "backward"] if STAGES[name].by_kernel else [])
    blocks = as_json("--expr", CAUSAL, "--stage", "blocks", "--shape", "1,1,1024,1024,64")
    tiles = blocks["tiles"]
    n_rows = 1024 // tiles["block_m"]
    assert tiles["full"] + tiles["partial"] + tiles["empty"] == n_rows * 1024 // tiles["block_n"]
    assert [run["start"] for run in blocks["bounds"]] == ["0"]
    assert blocks["costs"]["backward"]["flops"] > blocks["costs"]["forward"]["flops"]
    plan = as_json("--expr", CAUSAL, "--stage", "plan")
    for kernel in plan["kernels"]:
        assert all(decision["what"] and decision["why"] for decision in kernel["decisions"])


@pytest.mark.parametrize("target", ["sm_80"])
def test_resources_are_of_every_kernel(target: str) -> None:
    """For a machine that is not here: the real command, whose output is JSON alone."""
    command = [sys.executable, "-m", "attnc", "inspect", "--expr", CAUSAL, "--json"]
    options = ["--stage", "resources", "--target", target, "--shape", SMALL]
    environment = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env=environment, check=True
    )

    kernels = {kernel["name"]: kernel for kernel in json.loads(done.stdout)["kernels"]}

    assert list(kernels) == GPU_KERNELS
    for name, kernel in kernels.items():
        assert 0 < kernel["registers"] <= 255
        assert kernel["spills"] == 0
        assert 0 < kernel["occupancy"] <= 1
        assert (kernel["tensor_core_instructions"] > 0) == (name != "delta")
        assert (kernel["shared_bytes"] > 1024) == (name != "delta")
        expected = {"FULL", "PARTIAL"} if name != "delta" else set()
        assert {loop["kind"] for loop in kernel["loops"]} == expected


def test_resources_are_what_the_compiler_says() -> None:
    """Registers as the disassembler reads them, tensor-core instructions as PTX has them."""
    inspection = Inspection.of(causal, target="sm_80", shape=(1, 1, 256, 256, 32))
    (stage,) = inspection.stages(["resources"])
    (sass, *_) = inspection.stages(["sass"], passes="forward")
    (source,) = sources_of(inspection, inspection.gpu, "forward")
    (binary,) = (binary for _, binary in source.binaries())

    forward = stage.data["kernels"][0]

    assert f"SHI_REGISTERS={forward['registers']}" in sass.text
    assert forward["tensor_core"] == {"mma.sync": binary.texts["ptx"].count("mma.sync.aligned.m")}
    assert "HMMA" in sass.text


# Every machine, and what Triton multiplies without tensor cores there.
SLOW_RESOURCES = [
    ("sm_90", "bfloat16"),
    ("sm_90", "float64"),
    ("sm_100", "float32"),
    ("sm_100", "float64"),
    ("gfx942", "float32"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "dtype"), SLOW_RESOURCES)
def test_resources_of_every_machine_and_dtype(target: str, dtype: str) -> None:
    """Tensor cores or vectors multiply, by machine and dtype; loops are told apart either way."""
    inspection = Inspection.of(causal, target=target, dtype=dtype)
    (stage,) = inspection.stages(["resources"])

    kernels = stage.data["kernels"]

    assert [kernel["name"] for kernel in kernels] == GPU_KERNELS
    for kernel in kernels:
        if kernel["name"] == "delta":
            continue
        by_vectors = (target, dtype) in (("sm_100", "float32"), ("sm_100", "float64"))
        assert (kernel["tensor_core_instructions"] == 0) == by_vectors
        assert kernel["vector_fma_instructions"] > (200 if by_vectors else 0)
        assert {loop["kind"] for loop in kernel["loops"]} == {"FULL", "PARTIAL"}


@pytest.mark.slow
def test_occupancy_is_that_of_llvm() -> None:
    """Of AMD's compute units, whose compiler writes it into the assembly as waves per SIMD."""
    inspection = Inspection.of(causal, target="gfx942")
    (stage,) = inspection.stages(["resources"])
    texts = {s.kernel: s.text for s in inspection.stages(["ptx"])}

    for kernel in stage.data["kernels"]:
        (waves,) = re.findall(r"^; Occupancy: (\d+)$", texts[kernel["name"]], re.MULTILINE)
        (scratch,) = re.findall(r"^; ScratchSize: (\d+)$", texts[kernel["name"]], re.MULTILINE)
        assert kernel["spills"] == int(scratch)
        if kernel["limited_by"] in ("registers", "warps"):
            assert kernel["occupancy"] == int(waves) / 8


@given(
    st.sampled_from(sorted(LIMITS)),
    st.integers(1, 255),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(0, 64 << 10),
)
def test_more_resources_never_raise_occupancy(
    name: str, registers: int, n_warps: int, shared_bytes: int
) -> None:
    """It is between 0 and 1, and falls with registers and shared memory."""
    target = GPU_TARGETS[name]

    def share(registers: int, shared_bytes: int) -> float:
        found = occupancy_of(
            target, registers=registers, n_warps=n_warps, shared_bytes=shared_bytes
        )
        assert found is not None
        return found.share

    here = share(registers, shared_bytes)

    assert 0 <= here <= 1
    assert share(registers + 1, shared_bytes) <= here
    assert share(registers, shared_bytes + 1024) <= here


def test_occupancy_of_known_programs() -> None:
    """As the tables of the CUDA guide say: 128 registers and 256 threads fill a quarter of an A100."""
    by_registers = occupancy_of(GPU_TARGETS["sm_80"], registers=128, n_warps=8, shared_bytes=0)
    by_memory = occupancy_of(GPU_TARGETS["sm_90"], registers=32, n_warps=4, shared_bytes=100 << 10)

    assert by_registers is not None
    assert (by_registers.share, by_registers.limited_by) == (0.25, "registers")
    assert by_memory is not None
    assert (by_memory.programs, by_memory.limited_by) == (2, "shared memory")


def test_cpu_kernels_are_counted_and_shown() -> None:
    """Forward and backward: multiply-adds where the machine has them; functions by name."""
    inspection = Inspection.of(causal, target="cpu-avx2")

    (resources,) = inspection.stages(["resources"])
    forward, backward = inspection.stages(["assembly"])

    assert [kernel["name"] for kernel in resources.data["kernels"]] == ["forward", "backward"]
    for kernel, stage in zip(resources.data["kernels"], (forward, backward), strict=True):
        assert kernel["vector_fma_instructions"] == len(
            re.findall(r"^ +[0-9a-f]+  vfn?m(?:add|sub)\d+p[sd] ", stage.text, re.MULTILINE)
        )
        assert 0 < kernel["registers"] <= 16
        assert kernel["tensor_core_instructions"] == 0
    assert "zmm" not in forward.text + backward.text
    assert "; void softmax_step<float" in forward.text
    assert "attnc::differentiate" in backward.text
    names = {f["name"] for f in resources.data["kernels"][0]["functions"]}
    assert any(name.startswith("void softmax_step<float") for name in names)


def test_spills_are_registers_stored_and_read_again() -> None:
    """A place that is only stored to, or only read, is none; nor is a scalar."""
    function = MachineFunction(
        "f",
        (
            "vmovaps YMMWORD PTR [rsp+0x20],ymm1",
            "vaddps ymm2,ymm3,YMMWORD PTR [rsp+0x20]",
            "vmovaps YMMWORD PTR [rsp+0x40],ymm1",
            "vmovaps xmm1,XMMWORD PTR [rbp-0x10]",
            "mov    QWORD PTR [rsp+0x8],rax",
            "vfmadd231ps zmm17,zmm1,ZMMWORD PTR [rax]",
            "vfmadd231ss xmm1,xmm2,xmm3",
        ),
        tuple("1234567"),
    )

    assert function.spilled_places == {"rsp+0x20": 32}
    assert function.n_fma == 1
    assert function.vector_registers == 4


def test_gradients_of_captured_tensors_have_kernels() -> None:
    """Where the captured tensor requires one, its gradient is part of the backward."""
    source = Inspection.of(alibi, shape=(1, 2, 256, 256, 64), target="sm_80")

    assert "sum0_ptr" in source.stages(["triton"], passes="backward")[0].text
    assert "sum0_ptr" not in source.stages(["triton"], passes="forward")[0].text


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that was asked for is an error; among all stages it says why it is not there."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    inspection = Inspection.of(causal)

    problems = {stage.name: stage.problem for stage in inspection.stages(passes="forward")}

    assert "no C++ compiler found" in str(problems["assembly"])
    assert "no C++ compiler found" in str(problems["resources"])
    assert problems["cpp"] is None
    assert invoke("inspect", "--expr", CAUSAL, "--stage", "assembly").exit_code == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="binutils"):
        disassembled(tmp_path)
    with pytest.raises(ToolMissingError, match="no-such-tool does not exist"):
        nvidia_tool("no-such-tool")


WITHOUT_TRITON = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from attnc.cli import main
sys.argv[0] = "attnc"
main()
"""


def test_without_triton_its_stages_say_so(tmp_path: Path) -> None:
    """In an environment that has all but Triton; the source needs none."""
    packages = Path(torch.__file__).parents[1]
    for path in packages.iterdir():
        if not path.name.startswith("triton"):
            (tmp_path / path.name).symlink_to(path)
    command = [sys.executable, "-S", "-c", WITHOUT_TRITON, str(tmp_path), "inspect"]
    options = ["--expr", CAUSAL, "--target", "sm_80", "--pass", "forward"]

    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "@triton.jit" in done.stdout
    told = (
        "not available here: Triton, which compiles kernels for GPUs, is missing: it is not "
        "installed. pip install triton.\n"
    )
    assert done.stdout.count(told) == 4  # ttir, ptx, sass, resources


def test_a_machine_without_a_stage_is_refused() -> None:
    """SASS is NVIDIA's; what AMD has instead is named."""
    with pytest.raises(InspectionOptionError, match="use ptx"):
        Inspection.of(causal, target="gfx942").stages(["sass"])
    with pytest.raises(InspectionOptionError, match="use one of traced"):
        Inspection.of(causal).stages(["sourse"])


def test_disassembly_leaves_out_what_the_linker_adds() -> None:
    """Functions of the source only, each with its instructions."""
    text = """
0000000000001000 <_init>:
    1000:\tendbr64
0000000000001020 <free@plt>:
    1020:\tjmp    1026
0000000000001100 <void attend<float>(int)>:
    1100:\tpush   rbp
    1101:\tret
"""

    assert list(functions_in(text)) == [
        MachineFunction("void attend<float>(int)", ("push   rbp", "ret"), ("1100", "1101"))
    ]


def sampled(name: str) -> Inspection:
    entry = ENTRIES[name]
    return Inspection.of(entry.kernel(), shape=(*entry.shape, 64))


@settings(max_examples=8)
@given(st.sampled_from(sorted(ENTRIES)))
def test_a_function_does_not_differ_from_itself(name: str) -> None:
    """Of entries of the library, each made twice: nothing to show, and the summary says so."""
    found = difference_of(sampled(name), sampled(name), passes="forward")

    assert found.is_empty
    assert "mask: same" in found.summary
    assert found.summary.endswith("same kernel source")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_no_entry_differs_from_itself(name: str) -> None:
    """Of any entry of the library, in both passes."""
    assert difference_of(sampled(name), sampled(name)).is_empty


MASKS = """
def sliding(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx){more}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: None) -> Path:
    """A repository whose file of masks has two revisions, and a third that is not committed."""
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    for more in ("", " & (q_idx - kv_idx < 100)"):
        (tmp_path / "masks.py").write_text(MASKS.format(more=more))
        git("add", "masks.py")
        git("commit", "-qm", "mask")
    (tmp_path / "masks.py").write_text(MASKS.format(more=" & (q_idx - kv_idx < 200)"))
    return tmp_path


@pytest.mark.usefixtures("repository")
def test_versions_of_a_function_are_compared() -> None:
    """One line says what differs; each stage has its diff; the exit code is that of diff."""
    sizes = ("--shape", "1,1,4096,4096,64", "--pass", "forward")

    grown = invoke("inspect", "--diff", "masks.py@HEAD~1:sliding", "masks.py:sliding", *sizes)
    widened = invoke("inspect", "--diff", "masks.py@HEAD:sliding", "masks.py:sliding", *sizes)
    same = invoke("inspect", "--diff", "masks.py:sliding", "masks.py:sliding", *sizes)

    assert (grown.exit_code, widened.exit_code, same.exit_code) == (1, 1, 0), grown.output
    assert re.fullmatch(
        r"mask: \+1 term; tiles visited 2,080 -> \d+; other kernel source \(\d+ lines\)",
        grown.stdout.splitlines()[0],
    )
    assert "+    p0 = 200" in grown.stdout
    # The width of a window is an argument: no other kernel is built for it.
    assert widened.stdout.splitlines()[0].endswith("same kernel source")
    assert "-    p0 = 100\n+    p0 = 200" in widened.stdout
    (line,) = same.stdout.splitlines()
    assert line.startswith("mask: same; ")


@pytest.mark.usefixtures("python_path")
def test_differences_have_json() -> None:
    """Two lambdas and an entry of the library; the stages compared can be chosen."""
    lambdas = ("lambda b, h, q, kv: q >= kv", "lambda b, h, q, kv: (q >= kv) & (kv > 3)")

    result = invoke("inspect", "--diff", *lambdas, "--stage", "ir", "--json")
    equal = invoke("inspect", "--diff", lambdas[0], "library:causal()", "--stage", "ir", "--json")

    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert not found["same"]
    assert found["summary"].startswith("mask: +1 term; ")
    assert list(found["diffs"]) == ["ir"]
    assert equal.exit_code == 0
    assert json.loads(equal.stdout)["same"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--diff", CAUSAL), "--diff compares two functions, A and B"),
        ((CAUSAL, CAUSAL), "two functions need --diff"),
        (("--diff", "nosuch.py@HEAD:f", CAUSAL), "git says: "),
        (("--diff", "masks.py@HEAD~9:sliding", CAUSAL), "git says: invalid object name 'HEAD~9'."),
        (("--diff", "masks.py@:sliding", CAUSAL), "'' is no revision"),
        (("--diff", "none/masks.py@HEAD:f", CAUSAL), "the folder none does not exist"),
        (("--pass", "both", "--expr", CAUSAL), "use one of forward, backward, all"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("repository")
def test_trouble_is_exit_code_2(arguments: tuple[str, ...], told: str) -> None:
    """As with diff: no comparison, one line that says why."""
    result = invoke("inspect", *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert told in line
