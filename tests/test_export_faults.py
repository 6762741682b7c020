"""Exported modules in odd surroundings and for odd arguments: right, or one clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exportable import EXPORTABLE, causal, names_of, write
from processes import becomes, hanging_compiler, is_alive
from typer.testing import CliRunner

import attnc
from attnc.cli.app import app


def strict(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx > kv_idx


gain = torch.ones(4, requires_grad=True)
zero = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)


def divided(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score * gain[h] / (q_idx - kv_idx)


def logarithm(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + torch.log(zero[kv_idx % 3])


@pytest.mark.parametrize(
    ("mask", "score"), [(strict, divided), pytest.param(causal, logarithm, marks=pytest.mark.slow)]
)
def test_the_own_test_accepts_derivatives_that_are_infinite_where_nothing_is_seen(
    mask: Any, score: Any, tmp_path: Path
) -> None:
    """Hidden pairs divide by 0, visible ones have weight 0: dense gradients must not be NaN."""
    module = names_of(write(tmp_path, attnc.kernel(mask=mask)(score)))
    shape, generator = (2, 1, 4, 2, 33, 40), torch.Generator().manual_seed(0)

    error, where = module["compare"](shape, torch.device("cpu"), generator)

    assert error <= module["TOLERANCE"], where


@pytest.fixture(scope="module")
def alibi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A module whose score_mod adds slopes[h] * distance."""
    return names_of(write(tmp_path_factory.mktemp("alibi"), EXPORTABLE["alibi"]))


def test_captured_tensors_that_are_negated_lazily_are_read_as_they_are(
    alibi: dict[str, Any],
) -> None:
    """A view of a conjugate has the negative bit: its memory holds the opposite numbers."""
    torch.manual_seed(0)
    x, slopes = torch.randn(1, 4, 20, 16), torch.randn(4)
    lazy = torch.complex(slopes, -slopes).conj().imag
    assert lazy.is_neg()

    assert torch.equal(
        alibi["attention"](x, x, x, slopes=lazy), alibi["attention"](x, x, x, slopes=slopes)
    )


def test_empty_captured_tensors_count_as_zero_and_have_an_empty_gradient(
    alibi: dict[str, Any],
) -> None:
    """Autograd finds the tensor that was given."""
    x, empty = torch.randn(1, 1, 5, 16), torch.zeros(0, requires_grad=True)

    out = alibi["attention"](x, x, x, slopes=empty)

    assert torch.equal(out.detach(), alibi["attention"](x, x, x, slopes=torch.zeros(1)))
    (gradient,) = torch.autograd.grad(out.sum(), empty)
    assert gradient.shape == (0,)


def test_second_derivatives_raise_instead_of_being_dropped(alibi: dict[str, Any]) -> None:
    """A penalty on gradients would lose its own gradient without a word."""
    x, q = torch.randn(1, 4, 20, 16), torch.randn(1, 4, 20, 16, requires_grad=True)
    out = alibi["attention"](q, x, x)
    (gradient,) = torch.autograd.grad(out.sum(), q, create_graph=True)

    with pytest.raises(RuntimeError, match="have no second derivatives"):
        (gradient.square().sum() + out.sum()).backward()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda x: {"q": None}, "q must be a strided tensor, not NoneType."),
        (lambda x: {"k": x.to_sparse()}, "k must be a strided tensor, not torch.sparse_coo."),
        (lambda x: {"slopes": [1.0]}, "slopes must be a strided tensor, not list."),
    ],
)
def test_what_is_no_tensor_is_refused(
    make: Callable[[torch.Tensor], dict[str, Any]], told: str, alibi: dict[str, Any]
) -> None:
    """By name, before memory is read."""
    x = torch.zeros(1, 1, 4, 16)

    with pytest.raises(TypeError) as caught:
        alibi["attention"](**{"q": x, "k": x, "v": x, **make(x)})

    assert str(caught.value) == told


def test_kernels_for_gpus_refuse_tensors_of_the_cpu(tmp_path: Path) -> None:
    """Triton's own words, "0 active drivers", do not say what to do."""
    write(tmp_path, EXPORTABLE["causal"], target="sm_90", forward_only=True)
    program = "import torch, kernel; x = torch.zeros(1, 1, 4, 16).bfloat16(); "

    done = run(tmp_path, "-c", f"{program}kernel.attention(x, x, x)", TRITON_INTERPRET="0")

    assert done.stderr.splitlines()[-1] == (
        "ValueError: q is on cpu; these kernels are for GPUs, or for the CPU with "
        "TRITON_INTERPRET=1 set before Python starts."
    )


FORKED = """
import os, signal, sys, torch
torch.set_num_threads(2)
torch.randn(1 << 22).exp_()  # starts OpenMP's threads, which a fork does not have
if os.fork() == 0:
    signal.alarm(60)
    from kernel import attention
    x = torch.ones(1, 4, 512, 16)
    out = attention(x, x, x)[0, :, ::100]
    os._exit(int((out - 1).abs().max() > 1e-5))
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in ``folder``, with libraries kept in ``folder / "cache"``."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **more}
    return subprocess.run(
        [sys.executable, "-B", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_module_first_imported_in_a_forked_child_runs(tmp_path: Path) -> None:
    """Using the threads that the parent's OpenMP had would hang."""
    write(tmp_path, EXPORTABLE["causal"])

    done = run(tmp_path, "-c", FORKED)

    assert done.returncode == 0, done.stderr


def test_a_compiler_that_hangs_ends_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the time limit; the error says so."""
    module = names_of(write(tmp_path, EXPORTABLE["causal"], forward_only=True))
    compiler, numbers = hanging_compiler(tmp_path)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module["TIME_LIMIT"] = 1.0

    with pytest.raises(RuntimeError, match="did not finish in 1 s"):
        module["library"]()

    compilers = [int(number) for number in numbers.read_text().split()]
    assert becomes(lambda: not any(map(is_alive, compilers)), 3.0)
    assert list((tmp_path / "cache" / "attnc-exports").iterdir()) == []


@pytest.mark.slow
def test_damaged_libraries_and_missing_homes_are_no_obstacle(tmp_path: Path) -> None:
    """A file that does not load is compiled anew; no folder named ~ or in the working folder."""
    write(tmp_path, EXPORTABLE["causal"], forward_only=True)
    assert run(tmp_path, "kernel.py").returncode == 0
    (library,) = (tmp_path / "cache" / "attnc-exports").iterdir()
    library.write_text("no library")

    done = run(tmp_path, "kernel.py", CXX=" ")
    assert done.returncode == 0, done.stderr

    known = sorted(tmp_path.iterdir())
    homeless = "import os; os.path.expanduser = str; import kernel; kernel.library()"
    for setting in ("", "relative"):
        done = run(tmp_path, "-c", homeless, XDG_CACHE_HOME=setting)
        assert done.returncode == 0, done.stderr
        assert sorted(tmp_path.iterdir()) == known


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torch", "it would hide the package torch."),
        ("struct", "a module of this name would hide Python's own struct."),
    ],
)
def test_modules_that_would_hide_what_they_import_are_refused(
    name: str, told: str, tmp_path: Path
) -> None:
    """`python torch.py` would import itself."""
    (tmp_path / "masks.py").write_text(
        "def causal(b, h, q_idx, kv_idx):\n    return q_idx >= kv_idx\n"
    )
    output = str(tmp_path / f"{name}.py")

    arguments = ["export", f"{tmp_path / 'masks.py'}:causal", "-o", output]
    result = CliRunner().invoke(app, arguments, prog_name="attnc")

    assert result.exit_code == 2, result.output
    assert result.stderr == f"attnc: error: --output '{output}': {told}\n"
    assert not Path(output).exists()
