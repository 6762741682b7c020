"""The ``attnc`` command: what it prints, its exit codes, and one clear line for each mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import invoke, mistake, work_in

import attnc
from attnc.evaluate import evaluate
from attnc.program import build_program
from attnc.stages import STAGES, Inspection

ROOT = Path(__file__).parent.parent
CAUSAL = "lambda b, h, q, kv: q >= kv"

MASKS = """
import attnc

WINDOW = 5


@attnc.kernel
def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < WINDOW)


def window_plus_one(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)


def branching(b, h, q_idx, kv_idx):
    if q_idx > 3:
        return kv_idx == 0
    return q_idx >= kv_idx


def raising(b, h, q_idx, kv_idx):
    return {}["missing"]


def three(b, h, q_idx):
    return q_idx == 0


def halved(score, b, h, q_idx, kv_idx):
    return score / 2


class Masks:
    @staticmethod
    def diagonal(b, h, q_idx, kv_idx):
        return q_idx == kv_idx
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of masks; what is imported from it is forgotten afterwards."""
    return work_in(tmp_path, monkeypatch, masks=MASKS)


def real_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The console script beside this interpreter, in a process of its own."""
    command = [str(Path(sys.executable).with_name("attnc")), *arguments]
    environment = {**os.environ, "FORCE_COLOR": "1"}  # only a terminal may get colours
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_real_command_prints_plain_text_when_piped(folder: Path) -> None:
    """The installed command prints the Triton source, which is Python, without colour codes."""
    result = real_command("inspect", "masks.py:window", "--stage", "triton", cwd=folder)

    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    compile(result.stdout, "<kernel>", "exec")


def test_real_command_reports_a_mistake_in_one_line(folder: Path) -> None:
    """A branch on a traced value: file, line and source on standard error, exit code 2."""
    result = real_command("inspect", "masks.py:branching", cwd=folder)

    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    number = MASKS.splitlines().index("    if q_idx > 3:") + 1
    assert f"masks.py:{number}: `if q_idx > 3:`" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_full_disk_is_one_clear_line(folder: Path) -> None:
    """Output that cannot be written is told on standard error, without a traceback."""
    command = [sys.executable, "-m", "attnc", "show", "masks.py:window"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert result.returncode == 2
    assert result.stderr == "attnc: error: [Errno 28] No space left on device.\n"


def test_module_runs_as_the_command_does(folder: Path) -> None:
    """``python -m attnc`` is the same command."""
    command = [sys.executable, "-m", "attnc", "--version"]

    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert result.stdout == f"attnc {attnc.__version__}\n"


def test_picture_survives_an_encoding_without_its_characters(folder: Path) -> None:
    """Where output is ASCII the picture loses its characters, but the command works."""
    command = [sys.executable, "-m", "attnc", "show", "masks.py:window"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert "??" in result.stdout


def test_help_needs_no_torch(folder: Path) -> None:
    """``attnc --help`` imports neither torch, sympy nor Triton, so it answers at once."""
    code = """
import sys
from attnc.cli.app import app
try:
    app(["--help"])
except SystemExit:
    print(sorted({"torch", "sympy", "triton", "jinja2"} & set(sys.modules)))
"""

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "[]"


COMPILED = ("ttir", "ptx", "sass", "assembly", "resources")


@pytest.mark.parametrize("stage", [s for s in STAGES if s not in COMPILED])
def test_stage_prints_what_inspection_gives(folder: Path, stage: str) -> None:
    """Each stage of the command is that of the Inspection, under its header."""
    shape = (2, 3, 300, 200, 32)
    sizes = ",".join(map(str, shape))

    result = invoke(
        "inspect", "masks.py:window", "--stage", stage, "--shape", sizes, "--target", "sm_90"
    )

    assert result.exit_code == 0, result.stderr
    inspection = Inspection.of(sys.modules["masks"].window, shape=shape, target="sm_90")
    for found in inspection.stages([stage]):
        assert f"{found.summary}\n\n{found.text}\n" in result.stdout


def test_all_stages_end_in_the_kernel_of_the_machine(folder: Path) -> None:
    """On a CPU the stages lead to its machine code and what it takes, under a header each."""
    result = invoke("inspect", "masks.py:window", "--pass", "forward")

    headings = re.findall(r"^(?:== |// |# )([\w-]+): .*", result.stdout, re.MULTILINE)
    expected = [name for name in STAGES if STAGES[name].machine in ("any", "cpu")]
    assert [name for name in headings if name in STAGES] == expected


def test_shape_beyond_memory_is_one_clear_line() -> None:
    """Queries that no memory holds."""
    message = mistake("bench", "--expr", CAUSAL, "--shape", "1,64,1000000000,1000000000,64")

    assert message.startswith("memory is short: ")


def test_assembly_of_a_gpu_needs_no_target() -> None:
    """PTX is that of a bfloat16 kernel for a GPU, also on a machine without one."""
    assembly = invoke("inspect", "--expr", CAUSAL, "--stage", "ptx", "--pass", "forward").stdout

    assert ".visible .entry" in assembly
    assert "bfloat16" in assembly.splitlines()[1]


@pytest.mark.parametrize("target", ["masks.py:window", "masks:window", "./masks.py:Masks.diagonal"])
def test_target_is_found(folder: Path, target: str) -> None:
    """A function is found in a file, in a module of the current folder, and inside a class."""
    result = invoke("inspect", target, "--stage", "ir")

    assert result.exit_code == 0, result.stderr
    assert "q_idx" in result.stdout


def test_expression_takes_the_place_of_a_target() -> None:
    """``--expr`` may use torch, and its source is shown as traced."""
    expression = "lambda b, h, q, kv: torch.minimum(q, kv) < 3"

    result = invoke("inspect", "--expr", expression, "--stage", "traced")

    assert expression in result.stdout


MISTAKES = {
    "no target": ((), "no function was given. Give one function: FILE.py:NAME"),
    "target and expression": (
        ("masks.py:window", "--expr", CAUSAL),
        "both masks.py:window and --expr",
    ),
    "no name": (("masks.py",), "'masks.py' names no function"),
    "missing file": (("mask.py:window",), "mask.py does not exist. Did you mean masks.py?"),
    "missing folder": (("no/masks.py:window",), "nor does the folder no."),
    "missing module": (("nowhere.masks:window",), "nowhere.masks does not exist as a module."),
    "near name": (("masks.py:windov",), "has no 'windov'. Did you mean window"),
    "no near name": (("masks.py:zzz",), "Functions over indices there: window, "),
    "not a function": (("masks.py:WINDOW",), "is of class int, not a function"),
    "class": (("masks.py:Masks",), "is the class Masks, not a function"),
    "wrong arity": (("masks.py:three",), "three takes 3 parameters without default"),
    "raises": (("masks.py:raising",), "KeyError: 'missing' in "),
    "exits": (("--expr", "lambda b, h, q, kv: exit(3)"), "SystemExit: 3 in "),
    "folder": (("/:window",), "/ does not exist as a file; it is a folder."),
    "expression syntax": (("--expr", "lambda b, h: ("), "was never closed in line 1"),
    "expression raises": (("--expr", "unknown"), "NameError: name 'unknown' is not defined"),
    "shape": (("masks.py:window", "--shape", "1,2,3"), "--shape '1,2,3': write five positive"),
    "zero shape": (("masks.py:window", "--shape", "1,1,0,8,8"), "write five positive integers"),
    "long shape": (("masks.py:window", "--shape", "1,1,8,9999999999,8"), "up to 2147483647"),
    "stage": (("masks.py:window", "--stage", "plans"), "Did you mean plan?"),
    "machine": (("masks.py:window", "--target", "sm90"), "Did you mean sm_90?"),
    "dtype": (("masks.py:window", "--dtype", "float31"), "Did you mean float32?"),
    "option": (("masks.py:window", "--stages", "ir"), "See `attnc inspect --help`."),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_clear_line(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    """Whatever is wrong with the arguments or the user's function: one line that says what."""
    assert told in mistake("inspect", *arguments)


BROKEN = {
    "syntax": ("def mask(b, h:\n    pass\n", "'(' was never closed in line 1, `def mask(b, h:`"),
    "exception": ("x = 1\ny = x / 0\n", "broken.py:2, `y = x / 0`"),
    "exit": ("raise SystemExit('enough')\n", "SystemExit: enough"),
    "import": ("import no_such_module\n", "No module named 'no_such_module'"),
}


@pytest.mark.parametrize(("source", "told"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_one_clear_line(folder: Path, source: str, told: str) -> None:
    """A file that cannot be imported: its line, and what is wrong there."""
    (folder / "broken.py").write_text(source)

    message = mistake("inspect", "broken.py:mask")

    assert message.startswith("broken.py cannot be used: ")
    assert told in message


def test_unknown_command_is_one_clear_line() -> None:
    """A mistyped command is answered with the one that was meant."""
    assert "Did you mean 'inspect'?" in mistake("inspct")


@pytest.mark.parametrize("arguments", [(), ("cache",)], ids=["attnc", "attnc cache"])
def test_command_alone_gives_help(arguments: tuple[str, ...]) -> None:
    """Without a command there is help, and nothing on standard error."""
    result = invoke(*arguments)

    assert "Usage:" in result.stdout
    assert result.stderr == ""


def test_small_mask_is_shown_pair_by_pair(folder: Path) -> None:
    """Each drawn cell is a visible pair, in rows of queries."""
    result = invoke("show", "masks.py:window", "--shape", "1,1,9,12,8")

    *rows, total = result.stdout.splitlines()
    drawn = [[cell == "██" for cell in re.findall("██|··", row)] for row in rows]
    mask = build_program(sys.modules["masks"].window, None).mask
    assert mask is not None
    zero = torch.zeros((), dtype=torch.int32)
    q_idx, kv_idx = (torch.arange(n, dtype=torch.int32) for n in (9, 12))
    expected = evaluate(mask, b=zero, h=zero, q_idx=q_idx[:, None], kv_idx=kv_idx, tensors=())
    assert drawn == expected.tolist()
    assert total == f"{int(expected.sum())} of 108 pairs are visible"


def test_large_mask_is_shown_tile_by_tile() -> None:
    """Causal over 4 x 4 tiles: full below the diagonal, partial on it, empty above."""
    result = invoke("show", "--expr", CAUSAL, "--shape", "1,1,256,256,8")

    rows = [line.split()[1] for line in result.stdout.splitlines()[1:5]]
    assert rows == ["▒···", "█▒··", "██▒·", "███▒"]
    assert "6 full, 4 partial, 6 empty of 16 tiles" in result.stdout


@pytest.mark.parametrize("shape", ["1,1,1000000,1000000,8", "1,1,1000000,80,8"])
def test_long_masks_fit_the_screen(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million queries are drawn to scale, which is told, within lines and columns."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    lines = invoke("show", "--expr", CAUSAL, "--shape", shape).stdout.splitlines()

    assert len(lines) < 20
    drawn = [line for line in lines if re.match(r" *\d+ [█▒·]+$", line)]
    assert len(drawn) == 15
    assert max(map(len, drawn)) <= 60
    assert any(line.startswith("one character: ") for line in lines)


def test_show_explains_a_tile() -> None:
    """``--why`` tells the class of one tile and what makes it so."""
    result = invoke("show", "--expr", CAUSAL, "--shape", "1,1,256,256,8", "--why", "2,0")

    assert "FULL" in result.stdout
    assert "q >= kv" in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--head", "3"), "--head 3: --shape 1,1,1024,1024,64 has 1; use 0 to 0."),
        (("--why", "2"), "write the numbers of a tile"),
        (("--why", "2,99"), "99"),
        (("--block", "0"), "use 1 or more"),
    ],
)
def test_show_refuses_what_is_not_there(options: tuple[str, ...], told: str) -> None:
    """A head, tile or block size that does not exist is one clear line."""
    assert told in mistake("show", "--expr", CAUSAL, *options)


def test_check_succeeds_with_a_summary(folder: Path) -> None:
    """A kernel that does what its function says: exit code 0 and what was examined."""
    result = invoke("check", "masks.py:window", "--examples", "3")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("masks.py:window: 3 random inputs")


def test_check_fails_with_a_counterexample(folder: Path) -> None:
    """Two masks that differ by one: exit code 1, and the smallest pair where they do."""
    result = invoke("check", "masks.py:window_plus_one", "--expected", "masks.py:window")

    assert result.exit_code == 1
    assert "q_idx=5, kv_idx=0" in result.stdout
    assert "Traceback" not in result.output


def test_check_lists_laws_and_properties(folder: Path) -> None:
    """Laws are chosen and left out by name; each has a line that says how often it was examined."""
    options = ("--laws", "no-gradients,no-empty-rows", "--no-gradients", "--properties", "causal")
    result = invoke("check", "masks.py:window", "--examples", "2", *options)

    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[1:])
    assert lines["causal"].startswith("proved (")
    assert lines["forward"] == "2 examples"
    assert not {"gradients", "empty-rows"} & lines.keys()


def test_check_names_the_laws_there_are(folder: Path) -> None:
    """A law, property or dtype that does not exist is one clear line: exit code 2."""
    assert "--laws 'foward': use one of total, " in mistake(
        "check", "masks.py:window", "--laws", "foward"
    )
    assert "--properties 'even': use one of causal" in mistake(
        "check", "masks.py:window", "--properties", "even"
    )
    assert "--dtypes 'float8'" in mistake("check", "masks.py:window", "--dtypes", "float8")


def test_check_reports_what_is_wrong_with_the_expected_function(folder: Path) -> None:
    """The second function may be of the other kind, or raise: one line under its own name."""
    expected = ("check", "masks.py:window", "--backend", "cpu", "--expected")

    assert "--expected must be a mask_mod" in mistake(*expected, "masks.py:halved")
    message = mistake(*expected, "masks.py:raising")
    assert message.startswith("masks.py:raising cannot be used: KeyError: 'missing' in ")


def test_check_needs_a_backend_that_runs_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TRITON_INTERPRET=1 there is no Triton on CPU tensors to check."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    assert "TRITON_INTERPRET=1" in mistake("check", "masks.py:window", "--backend", "triton")


def test_cache_can_be_looked_at_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one kernel ``cache info`` counts it, and ``cache clear`` removes it."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    invoke("inspect", "--expr", CAUSAL, "--stage", "ptx", "--pass", "forward")

    before = invoke("cache", "info").stdout
    cleared = invoke("cache", "clear").stdout
    after = invoke("cache", "info").stdout

    assert re.search(r"kernels +1\n", before)
    assert str(tmp_path / "cache") in before
    assert cleared.startswith("removed 1 kernels")
    assert re.search(r"kernels +0\n", after)


def test_doctor_finds_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that does not exist ``doctor`` fails, names it, and says what to do."""
    monkeypatch.setenv("CXX", "no-such-compiler")

    result = invoke("doctor")

    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("fail   compiler"))
    assert "no-such-compiler" in line
    assert "or set CXX" in result.stdout


def test_doctor_passes_on_a_machine_that_runs_kernels() -> None:
    """Where the tests run there is a compiler: nothing fails, and each line has a level."""
    result = invoke("doctor")

    assert result.exit_code == 0, result.stdout
    levels: list[Any] = [line.split()[0] for line in result.stdout.splitlines() if line[0] != " "]
    assert set(levels) <= {"ok", "warn"}
    assert len(levels) == 8


@pytest.mark.slow
def test_doctor_measures_the_rates_of_the_machine() -> None:
    """When asked, in one more line."""
    result = invoke("doctor", "--calibrate")

    assert re.search(r"^ok +rates +per thread \d+ GFLOP/s in float32", result.stdout, re.MULTILINE)
