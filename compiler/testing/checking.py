"""``check``: property-based testing of one mask_mod, score_mod or Kernel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from attnc.errors import CheckFailedError, NotCheckableError
from attnc.mods import Mod, mod_kind, mod_name, require_kind
from attnc.testing.inputs import inputs
from attnc.testing.programs import Limits
from attnc.testing.recipes import InputsRecipe, MaskRecipe, ScoreRecipe, Shape
from attnc.testing.subject import Failure, Subject

_Checked = Mod | MaskRecipe | ScoreRecipe


@dataclass(frozen=True)
class CheckReport:
    """What a ``check`` that found nothing has examined."""

    name: str
    n_examples: int
    backends: tuple[str, ...]

    def __str__(self) -> str:
        where = " and ".join(self.backends) or "no backend"
        return f"{self.name}: {self.n_examples} random inputs, kernels of {where}: no law broken"


def check(
    f: _Checked,
    *,
    expected: Mod | None = None,
    mask: Mod | MaskRecipe | None = None,
    score: Mod | ScoreRecipe | None = None,
    scale: float | None = None,
    examples: int = 25,
    backends: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32",),
    device: str = "cpu",
    limits: Limits | None = None,
) -> CheckReport:
    """Looks for an input at which ``f`` or a kernel made from it is wrong.

    At each random input, ``f`` must equal ``expected`` (if given), its compiled form must equal
    the function, its tiles must be EMPTY, PARTIAL and FULL exactly where they are, and each
    backend's kernel must equal the float64 reference and repeat itself bit for bit.

    Args:
        f: mask_mod (4 parameters), score_mod (5), Kernel, or a recipe of one.
        expected: What ``f`` ought to be: a function of the same parameters, in any style that
            runs on PyTorch's scalars. Without it, the law is that kernels do what ``f`` says.
        mask, score: What goes along with ``f``; those of a Kernel by default.
        examples: Number of random inputs.
        backends: "cpu", "triton"; all that run here if None, and none if empty.
        dtypes: Of q, k, v, drawn from these.
        device: Where q, k, v are; captured tensors must be there too.
        limits: Coordinates that ``f`` can bear. By default small ones, and where ``f`` indexes a
            captured tensor by a coordinate itself, those of the tensor.

    Raises:
        CheckFailedError: with the smallest counterexample found, and how to reproduce it.
        NotCheckableError: the mask is a BlockMask, which holds for one length only.
        WrongModKindError: ``expected`` takes other parameters than ``f``.
    """
    subject = _subject(f, expected, mask, score, scale, backends, device)
    bounds = subject.limits(limits or Limits())
    failures: list[Failure] = []
    n_examples = 0

    def examine(recipe: InputsRecipe) -> None:
        nonlocal n_examples
        n_examples += 1
        failure = subject.first_failure(recipe)
        if failure is not None:
            failures.append(failure)
            raise _LawBroken

    search = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        search(given(_small_inputs(bounds, dtypes))(examine))()
    except (_LawBroken, Flaky):
        # Hypothesis runs the smallest one last.
        raise _failed(f, subject, failures[-1]) from None
    return CheckReport(_name(f), n_examples, subject.backends)


class _LawBroken(Exception):
    """Tells hypothesis that an example failed."""


def available_backends(device: str = "cpu") -> tuple[str, ...]:
    """Backends that make kernels for tensors on ``device`` here.

    On the CPU "cpu" needs a C++ compiler and "triton" the environment variable TRITON_INTERPRET=1.
    """
    if torch.device(device).type != "cpu":
        return ("triton",)
    compilers = (os.environ.get("CXX", "c++").split()[0], "c++", "g++", "clang++")
    has_compiler = any(shutil.which(compiler) for compiler in compilers)
    interprets = os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")
    return ("cpu",) * has_compiler + ("triton",) * interprets


def _subject(
    f: _Checked,
    expected: Mod | None,
    mask: Mod | MaskRecipe | None,
    score: Mod | ScoreRecipe | None,
    scale: float | None,
    backends: Sequence[str] | None,
    device: str,
) -> Subject:
    mod = _built(f)
    if expected is not None:
        require_kind(expected, mod_kind(mod), "expected")
    options = getattr(mod, "options", {})
    if mod_kind(mod) == "mask_mod":
        mask_source, score_source = mod, score or getattr(mod, "score", None)
    else:
        mask_source, score_source = mask or getattr(mod, "mask", None), mod
    built_mask = _built(mask_source)
    if built_mask is not None and not callable(built_mask):
        raise NotCheckableError(name=_name(f), kind=type(built_mask).__name__)
    return Subject(
        mask=built_mask,
        score=_built(score_source),
        scale=options.get("scale") if scale is None else scale,
        expected=expected,
        backends=available_backends(device) if backends is None else tuple(backends),
        device=device,
        mask_source=mask_source,
    )


@st.composite
def _small_inputs(draw: st.DrawFn, limits: Limits, dtypes: Sequence[str]) -> InputsRecipe:
    """As ``inputs()``, but shrinking to lengths of a few tokens, and with few head sizes: each
    makes a kernel of its own."""
    n_batch = draw(st.integers(1, limits.n_batch))
    groups = [g for g in (1, 2) if g <= limits.n_heads]
    n_kv_heads = draw(st.integers(1, max(1, min(2, limits.n_heads // groups[-1]))))
    edges = [n for n in (0, 1, 63, 64, 65, 127, 128, 129, 200, 257) if n <= limits.length]
    length = st.one_of(st.integers(min(1, limits.length), limits.length), st.sampled_from(edges))
    head_dim = draw(st.sampled_from((16, 40)))
    shape = Shape(
        n_batch=n_batch,
        n_heads=n_kv_heads * draw(st.sampled_from(groups)),
        n_queries=draw(length),
        n_keys=draw(length),
        head_dim=head_dim,
        value_dim=head_dim,
        n_kv_heads=n_kv_heads,
        n_kv_batch=draw(st.sampled_from((n_batch, 1))),
    )
    return draw(inputs(shape, dtypes=dtypes))


def _failed(f: _Checked, subject: Subject, failure: Failure) -> CheckFailedError:
    shape = failure.inputs.shape
    sizes = f"B={shape.n_batch}, H={shape.n_heads}, Q_LEN={shape.n_queries}, KV_LEN={shape.n_keys}"
    names = ("b", "h", "q_idx", "kv_idx")
    if failure.point is None:
        where = sizes
    else:
        pairs = zip(names, failure.point, strict=True)
        where = ", ".join(f"{name}={value}" for name, value in pairs) + f" ({sizes})"
    return CheckFailedError(
        name=_name(f),
        law=failure.law,
        details=failure.details,
        where=where,
        point=failure.point,
        inputs=failure.inputs,
        reproduction=_reproduction(f, subject, failure),
    )


def _reproduction(f: _Checked, subject: Subject, failure: Failure) -> str:
    """Python source that shows the failure; functions with a name are assumed in scope."""
    is_mask = subject.score is None
    lines = ["import torch", "import attnc", "from attnc.testing import *", ""]
    name = _defined(f, "f", lines)
    if failure.point is not None:
        point = ", ".join(f"torch.tensor({i}, dtype=torch.int32)" for i in failure.point)
        score = "" if is_mask else "torch.tensor(1.0), "
        return "\n".join([*lines, f"print({name}({score}{point}))"])
    arguments = [f"{'mask' if is_mask else 'score'}={name}"]
    if not is_mask and subject.mask is not None:
        arguments.append(f"mask={_defined(subject.mask_source, 'mask', lines)}")
    if subject.scale is not None:
        arguments.append(f"scale={subject.scale!r}")
    if failure.inputs.shape.enable_gqa:
        arguments.append("enable_gqa=True")
    common = ", ".join(arguments)
    built = f"{failure.inputs!r}.build()"
    if subject.device != "cpu":
        built = f"(x.to({subject.device!r}) for x in {built})"
    return "\n".join(
        [
            *lines,
            f"q, k, v = {built}",
            f'out = attnc.attention(q, k, v, {common}, backend="{failure.backend}")',
            f'expected = attnc.attention(q, k, v, {common}, backend="reference")',
            "print((out - expected).abs().max())",
        ]
    )


def _defined(f: Any, name: str, lines: list[str]) -> str:
    """What to call ``f`` in a reproduction; adds the line that makes it, or tells where it is."""
    if isinstance(f, MaskRecipe | ScoreRecipe):
        lines.append(f"{name} = {f!r}.build()")
        return name
    if mod_name(f).isidentifier():
        return mod_name(f)
    code = getattr(getattr(f, "fn", f), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}" if code else "your program"
    lines.append(f"# {name}: the function in {place}")
    return name


def _name(f: Any) -> str:
    return repr(f) if isinstance(f, MaskRecipe | ScoreRecipe) else mod_name(f)


def _built(f: Any) -> Any:
    return f.build() if isinstance(f, MaskRecipe | ScoreRecipe) else f
