"""``attnc export``: modules that run without attnc, and what cannot be exported."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import torch
from exportable import EXPORTABLE, documents, documents_of, learned, names_of, table, write
from hypothesis import given
from hypothesis import strategies as st

import attnc
from attnc.blocks import classify
from attnc.errors import NotExportableError
from attnc.evaluate import evaluate
from attnc.export import TARGETS, Request, export
from attnc.export.names import argument_names, plain, source_lines
from attnc.export.sections import joined
from attnc.export.torch_text import torch_text
from attnc.program import build_program
from attnc.render.names import FORWARD, KEYS
from attnc.runtime import triton_worker
from attnc.runtime.reference import reference_attention
from attnc.runtime.triton_compile import compile_offline
from attnc.target import GPU_TARGETS
from attnc.testing import MaskRecipe, ScoreRecipe, masks, score_mods

ROOT = Path(__file__).parent


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with every package of this one but attnc."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    packages = folder / "packages"
    packages.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            is_own = "attnc" in entry.name or entry.suffix == ".pth"
            if not (is_own or (packages / entry.name).exists()):
                (packages / entry.name).symlink_to(entry)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    (Path(found.stdout.strip()) / "linked.pth").write_text(f"{packages}\n")
    return python


def run_bare(python: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in ``folder`` with next to nothing in its environment."""
    environment = {
        "PATH": os.environ["PATH"],
        "XDG_CACHE_HOME": str(python.parent),
        "OMP_NUM_THREADS": "1",
        "TRITON_INTERPRET": "1",
    }
    return subprocess.run(
        [python, "-B", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param("learned", "cpu", marks=pytest.mark.slow),
        pytest.param("alibi", "interpreter", marks=pytest.mark.slow),
        pytest.param("documents", "interpreter"),
        *(
            pytest.param(name, target, marks=pytest.mark.slow)
            for name in EXPORTABLE
            for target in ("cpu", "cpu-generic", "interpreter")
            if (name, target)
            not in (("learned", "cpu"), ("documents", "interpreter"), ("alibi", "interpreter"))
        ),
    ],
)
def test_exported_modules_pass_their_own_test_without_attnc(
    name: str, target: str, bare_python: Path, tmp_path: Path
) -> None:
    """Forward and backward equal dense attention where attnc cannot be imported."""
    path = write(tmp_path, EXPORTABLE[name], target=target)

    assert run_bare(bare_python, tmp_path, "-c", "import attnc").returncode == 1
    result = run_bare(bare_python, tmp_path, path.name)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 of 6 shapes agree" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_exported_modules_of_every_dtype_pass_their_own_test(
    dtype: str, target: str, bare_python: Path, tmp_path: Path
) -> None:
    """Also with another width of the values, and the tensors inside the module."""
    if (dtype, target) == ("bfloat16", "interpreter"):
        pytest.skip("Triton's interpreter multiplies bfloat16 wrongly")
    path = write(tmp_path, learned, target=target, dtype=dtype, value_dim=24, embed=True)
    assert [p.name for p in tmp_path.iterdir()] == ["kernel.py"]

    result = run_bare(bare_python, tmp_path, path.name)

    assert result.returncode == 0, result.stdout + result.stderr


DRIVER = """
import torch
from kernel import attention

given = torch.load("inputs.pt")
leaves = [given[name].requires_grad_() for name in ("q", "k", "v", "table")]
q, k, v, table = leaves
found = attention(q, k, v, table=table, documents_of=given["ids"], scale=0.3, return_lse=True)
grads = torch.autograd.grad(found, leaves, (given["grad_out"], given["grad_lse"]))
try:
    attention(q, k, v.half())
except TypeError as error:
    told = str(error)
torch.save({"found": [x.detach() for x in found], "grads": grads, "told": told}, "outputs.pt")
"""


def test_an_exported_function_takes_other_lengths_and_captured_tensors(
    bare_python: Path, tmp_path: Path
) -> None:
    """New document ids, a new table, GQA and a shared batch of keys: as attnc's own reference."""
    write(tmp_path, learned)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 150, 4, 16).transpose(1, 2), *torch.randn(2, 1, 2, 131, 16)
    ids = torch.randint(0, 3, (150,)).sort()[0]
    new = torch.randn(4, 63)
    grads = {"grad_out": torch.randn(2, 4, 150, 16), "grad_lse": torch.randn(2, 4, 150)}
    torch.save({"q": q, "k": k, "v": v, "table": new, "ids": ids, **grads}, tmp_path / "inputs.pt")

    result = run_bare(bare_python, tmp_path, "-c", DRIVER)

    assert result.returncode == 0, result.stderr
    written = torch.load(tmp_path / "outputs.pt")

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (ids[q_idx] == ids[kv_idx]) & (q_idx >= kv_idx)

    leaves = [x.double().requires_grad_() for x in (q, k, v, new)]

    def score(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return score + leaves[3][h, (q_idx - kv_idx).clamp(-31, 31) + 31]

    kwargs: dict[str, Any] = {"mask": mask, "scale": 0.3, "enable_gqa": True}
    out, lse = attnc.attention(*leaves[:3], score=score, return_lse=True, **kwargs)
    dense = reference_attention(q, k, v, score=score, **kwargs)
    torch.testing.assert_close(written["found"][0].double(), dense.out, rtol=0, atol=1e-5)
    torch.testing.assert_close(written["found"][1].double(), dense.lse, rtol=0, atol=1e-5)
    weights = [grads["grad_out"].double(), grads["grad_lse"].double()]
    expected = torch.autograd.grad((out, lse), leaves, weights)
    for found, wanted in zip(written["grads"], expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert written["told"] == "v is torch.float16; these kernels are for torch.float32."


def grid(n_batch: int, n_heads: int, n_queries: int, n_keys: int) -> dict[str, torch.Tensor]:
    ranges = [torch.arange(n, dtype=torch.int32) for n in (n_batch, n_heads, n_queries, n_keys)]
    b, h, q_idx, kv_idx = ranges
    return {
        "b": b[:, None, None, None],
        "h": h[:, None, None],
        "q_idx": q_idx[:, None],
        "kv_idx": kv_idx,
    }


def value_of(text: Any, scope: dict[str, Any]) -> torch.Tensor:
    """What a function with this text returns."""
    environment = attnc.export.module._environment()
    functions = environment.get_template("export/values.py.jinja").render(calls=text.calls)
    scope = {"torch": torch, **scope}
    exec("\n".join([functions, *text.lines, f"result = {text.result}"]), scope)  # noqa: S102
    result: torch.Tensor = scope["result"]
    return result


@given(masks(), score_mods())
def test_printed_functions_compute_what_the_ir_means(mask: MaskRecipe, score: ScoreRecipe) -> None:
    """Text of an expression, run in torch, gives the evaluator's bits, wrapping and NaN included."""
    program = build_program(mask.build(), score.build())
    names = {slot: f"t{slot}" for slot in range(len(program.tensors))}
    points: dict[str, Any] = grid(2, 3, 9, 11)
    points["score"] = torch.linspace(-3, 3, 11)
    tensors = {names[slot]: tensor for slot, tensor in enumerate(program.tensors)}
    for traced in (program.traced_mask, program.mask, program.traced_score, program.score):
        assert traced is not None
        expected = evaluate(traced, tensors=program.tensors, **points)
        found = value_of(torch_text(traced, names), {**points, **tensors})
        assert found.dtype == expected.dtype
        assert torch.equal(
            found.broadcast_to(expected.shape).nan_to_num(7.0), expected.nan_to_num(7.0)
        )


@pytest.mark.parametrize("lengths", [(200, 200), (1, 65), (129, 127), (64, 128)])
def test_exported_tiles_are_those_of_the_analysis(lengths: tuple[int, int], tmp_path: Path) -> None:
    """Every tile's kind, and the runs that kernels read, for lengths that tiles do not divide."""
    scope = names_of(write(tmp_path, documents, target="cpu-generic", forward_only=True))
    n_queries, n_keys = lengths
    kinds = scope["tiles_of"](32, 64, 2, 3, n_queries, n_keys, [documents_of], torch.device("cpu"))
    program = build_program(documents, None)
    assert program.mask is not None
    known = classify(
        program.mask,
        program.tensors,
        n_batch=2,
        n_heads=3,
        n_queries=n_queries,
        n_keys=n_keys,
        block_m=32,
        block_n=64,
    ).table

    offsets, starts, stops, kind = scope["runs_of"](kinds)

    np.testing.assert_array_equal(kinds, known.to_dense())
    np.testing.assert_array_equal(offsets, known.offsets)
    np.testing.assert_array_equal(starts, known.starts)
    np.testing.assert_array_equal(stops, known.stops)
    np.testing.assert_array_equal(kind, known.kinds)


def test_tiles_are_found_anew_for_other_contents(tmp_path: Path) -> None:
    """The same shape with another content is another mask; the same content is found again."""
    scope = names_of(write(tmp_path, documents, target="cpu-generic", forward_only=True))
    arguments = (32, 32, 1, 1, 200, 200)
    device = torch.device("cpu")
    ids = documents_of.clone()
    first = scope["tiles_of"](*arguments, [ids], device)
    assert scope["tiles_of"](*arguments, [ids.clone()], device) is first

    ids[:] = 0

    found = scope["tiles_of"](*arguments, [ids], device)
    assert found.sum() > first.sum()


@pytest.mark.slow
@pytest.mark.parametrize("function", [FORWARD, KEYS])
def test_exported_triton_kernels_compile_for_a_gpu(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles the functions of an exported file for sm_90, under the names they have there."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    request = Request(EXPORTABLE["capped"], target="sm_90", head_dim=64)
    spec = request.specs()["forward" if function == FORWARD else "backward"]
    known = compile_offline(spec, GPU_TARGETS["sm_90"], function)
    asked = json.loads((known.binary.parent / triton_worker.REQUEST).read_text())
    (tmp_path / "kernel.py").write_text(export(request).text)
    (tmp_path / triton_worker.REQUEST).write_text(json.dumps(asked))
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}

    command = [sys.executable, "-P", triton_worker.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "wgmma.mma_async" in (tmp_path / "kernel.ptx").read_text()
    metadata = json.loads((tmp_path / triton_worker.METADATA).read_text())
    assert metadata["shared"] == known.shared_bytes


def test_definitions_that_differ_get_names_of_their_own() -> None:
    """Equal functions are shared unless something they read differs; attributes keep their names."""
    first = "import tl\nSIZE = 1\ndef add(x):\n    return x\ndef f(x):\n    return add(x, SIZE)\n"
    second = first.replace("SIZE = 1", "SIZE = 2").replace(
        "add(x, SIZE)", "tl.add(add(x), SIZE=SIZE)"
    )

    one, two = joined([("", first), ("back", second)])

    assert two.names == {"SIZE": "BACK_SIZE", "add": "add", "f": "back_f"}
    assert "def add" in one.text
    assert "def add" not in two.text
    assert "def back_f(x):\n    return tl.add(add(x), SIZE=BACK_SIZE)" in two.text
    ast.parse(one.text + two.text)


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_name_of_the_user_gets_into_the_code(name: str, other: str) -> None:
    """Names of captured tensors are identifiers and differ; titles hold no quotes or line ends."""
    names = argument_names({0: name, 1: other, 2: f"self.{name}"}, {"mask", "torch"})

    assert len(set(names.values())) == 3
    assert all(n.isidentifier() and n.isascii() for n in names.values())
    assert not {"mask", "torch", "None", "q"} & set(names.values())
    shown = plain(name)
    assert ast.literal_eval(f'"""{shown} """') == f"{shown} "


def test_a_hostile_function_stays_text(tmp_path: Path) -> None:
    """What a name or a source holds is not run, and cannot end a comment or a string."""
    namespace: dict[str, Any] = {"torch": torch, "slopes": torch.rand(4)}
    source = 'def f(b, h, q_idx, kv_idx):\n    "\x0craise SystemExit(3)\u2028raise SystemExit(4)"\n    return q_idx >= kv_idx\n'
    file = tmp_path / "f.py"
    file.write_text(source)
    exec(compile(source, str(file), "exec"), namespace)  # noqa: S102
    f = namespace["f"]
    f.__name__ = 'x"""\nraise SystemExit(5)\n"""{{ 7 * 7 }}'

    module = write(tmp_path, f, command='x"""\nraise SystemExit(6)')

    assert names_of(module)["HEAD_DIM"] == 16
    assert all("\n" not in line for line in source_lines([f]))
    assert "SystemExit(3)" in module.read_text()


@pytest.mark.parametrize(
    "target", ["cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_90", "gfx942"))]
)
def test_exported_modules_are_clean(target: str, tmp_path: Path) -> None:
    """No unused import or undefined name, whatever parts a function needs."""
    ruff = shutil.which("ruff") or Path(sys.executable).with_name("ruff")
    if not Path(ruff).exists():
        pytest.skip("ruff is not installed")
    for name, mod in EXPORTABLE.items():
        for forward_only in (True, False):
            options = {"target": target, "forward_only": forward_only}
            write(tmp_path, mod, stem=f"{name}_{forward_only}", **options)
    rules = ["--select", "E4,E7,E9,F,I001", "--ignore", "F841"]  # kernels name all coordinates
    command = [ruff, "check", "--isolated", "--no-cache", *rules, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


MASKS = """
import torch

bias = torch.zeros(4, requires_grad=True)


def learned(score, b, h, q_idx, kv_idx):
    return score + bias[h]


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of functions."""
    return commands.work_in(tmp_path, monkeypatch, masks=MASKS)


def mistake(*arguments: str) -> str:
    return commands.mistake("export", *arguments)


def test_export_replaces_nothing_unless_told_to(folder: Path) -> None:
    """The second export to a name is refused; --force replaces it."""
    command = ["masks.py:causal", "-o", "k.py", "--forward-only"]
    result = commands.invoke("export", *command)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("k.py: ")

    told = mistake(*command)

    assert told == "--output 'k.py': k.py exists; choose another name, or add --force."
    assert commands.invoke("export", *command, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "kernel.txt"), "--output 'kernel.txt': name a Python module, such as kernel.py."),
        (("-o", "no/kernel.py"), "--output 'no/kernel.py': there is no folder no."),
        (("-o", "class.py"), "--output 'class.py': name a Python module, such as kernel.py."),
        (
            ("--target", "cpu-amx"),
            f"--target 'cpu-amx': use one of {', '.join(TARGETS)}. Did you mean cpu-avx2?",
        ),
        (
            ("--target", "interpreter", "--dtype", "bfloat16"),
            (
                "--dtype 'bfloat16': Triton's interpreter multiplies bfloat16 wrongly; use float32 "
                "or float16."
            ),
        ),
        (("--head-dim", "0"), "--head-dim 0: use a number from 1 to 4096."),
    ],
)
def test_export_refuses_what_it_cannot_write(
    arguments: tuple[str, ...], told: str, folder: Path
) -> None:
    """One line that says what to write instead, and no file."""
    assert mistake("masks.py:causal", *arguments) == told
    assert [p.name for p in folder.iterdir() if p.suffix == ".py"] == ["masks.py"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target": "sm_91"}, "target='sm_91' is none of cpu, "),
        ({"dtype": "int8"}, "dtype='int8' is none of float32, "),
        ({"value_dim": 0}, "head_dim and value_dim must be positive whole numbers"),
    ],
)
def test_requests_for_what_there_is_not_are_refused(options: Any, told: str) -> None:
    """In Python too, before anything is traced."""
    with pytest.raises(NotExportableError, match=re.escape(told)):
        Request(EXPORTABLE["causal"], **options)
    with pytest.raises(NotExportableError, match="stem='a b' cannot be imported"):
        export(Request(EXPORTABLE["causal"]), stem="a b")


def test_learned_tensors_are_not_exported_without_their_gradients(folder: Path) -> None:
    """--constant-captured with a tensor that requires grad would lose its gradient."""
    told = mistake("masks.py:learned", "--constant-captured")

    assert told == (
        "learned cannot be exported: bias requires grad, and --constant-captured leaves its "
        "gradient out. Leave that option out, or detach the tensor."
    )


def test_gradients_are_refused_where_there_are_none(tmp_path: Path) -> None:
    """Forward-only modules and constant captured tensors raise instead of dropping gradients."""
    x = torch.zeros(1, 1, 4, 16)
    forward_only = names_of(write(tmp_path, EXPORTABLE["causal"], forward_only=True))
    with pytest.raises(RuntimeError, match="exported with --forward-only"):
        forward_only["attention"](x.clone().requires_grad_(), x, x)

    constant = names_of(write(tmp_path, EXPORTABLE["alibi"], constant_captured=True))
    with pytest.raises(RuntimeError, match="slopes requires grad"):
        constant["attention"](x, x, x, slopes=torch.zeros(1, requires_grad=True))


def test_learned_table_is_stored_with_its_values(tmp_path: Path) -> None:
    """Small captured tensors are in the text, larger ones in a file or, embedded, in the text."""
    exported = export(Request(learned), stem="kernel")
    assert set(exported.tensors) == {"table", "documents_of"}
    assert torch.equal(exported.tensors["table"], table.detach())
    assert not exported.tensors["table"].requires_grad

    embedded = export(Request(learned), embed=True)
    assert embedded.tensors == {}
    (tmp_path / "kernel.py").write_text(embedded.text)
    stored = names_of(tmp_path / "kernel.py")["stored"]()
    assert torch.equal(stored["documents_of"], documents_of)
    slopes = EXPORTABLE["alibi"]
    assert export(Request(slopes)).tensors == {}


def test_masks_whose_integers_may_wrap_take_a_table() -> None:
    """Bounds in closed form hold for all lengths and contents, or for small integers, or are not used."""
    shift = torch.tensor([3, 4])

    def near(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx <= q_idx + shift[b]

    def far(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx * 65536 >= kv_idx

    assert Request(EXPORTABLE["causal"]).small == ()
    assert Request(EXPORTABLE["prefixes"]).small == ()
    assert Request(near).small == (0,)
    less = torch.tensor(3, dtype=torch.int32)

    def before(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return kv_idx <= q_idx - less  # the least integer has no opposite

    assert Request(before).small == (0,)
    assert Request(far).small is None
    assert Request(far).specs()["forward"].from_table
