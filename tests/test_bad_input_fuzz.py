"""Mutated calls: a right call in which one to three things are changed at random.

The law: an error of ``attnc`` with a message comes out, or what the oracle says. The recipe is a text,
so that it is printed as it can be run; calls run in a child, where a crash is a failure too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bad_input.preamble import PREAMBLE
from bad_input.values import STRANGE
from bad_input.worker import Worker
from hypothesis import given, settings
from hypothesis import strategies as st

_ORACLE = """
def compared(q=Q, k=K, v=V, **keywords):
    out = attention(q, k, v, **keywords)
    exact = {**keywords, "backend": "reference", "return_lse": False}
    expected = attention(q.double(), k.double(), v.double(), **exact)
    out = out[0] if isinstance(out, tuple) else out
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 2e-1}.get(q.dtype, 1e-3)
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance, equal_nan=True)
"""
_CHANGES = (
    *(
        "{}.transpose(1, 2)",
        "{}.transpose(2, 3)",
        "{}[:0]",
        "{}[:, :0]",
        "{}[:, :, :0]",
        "{}[..., :0]",
    ),
    *("{}[:, :, ::2]", "{}[:, :, 3:9]", "{}[..., ::2]", "{}.flip(2)", "{}[0]", "{}[None]"),
    *("{}[:, :1].expand(-1, 2, -1, -1)", "{}[:, :, :1].expand(-1, -1, 20, -1)", "{}[:, :1]"),
    *(
        "{}.as_strided((1, 2, 20, 16), (0, 1, 3, 1))",
        "{}.as_strided((1, 2, 20, 16), (640, 7, 16, 1))",
    ),
    *("{}.half()", "{}.bfloat16()", "{}.double()", "{}.int()", "{} > 0", "{}.to(torch.complex64)"),
    *("{}.to('meta')", "{}.to_sparse()", "{}.as_subclass(Sub)", "freed({})", "{}.numpy()", "None"),
    *(
        "{}.clone().requires_grad_()",
        "torch.nn.Parameter({})",
        "{}.expand(3, -1, -1, -1)",
        "{}.tolist()",
    ),
    "{}.to(torch.complex64).conj().imag.to(torch.float32)",
    "torch.view_as_real({}.to(torch.complex64))[..., 0]",
)
_OPTIONS = {
    "mask": ("causal", "MASK", "create_block_mask(causal, 1, 1, 20, 20, device='cpu')", "IDS"),
    "score": ("decay", "SCORE", "causal", "lambda s, b, h, q, k: s * NUMBERS[k]"),
    "scale": ("0.5", "0.0", "-1.0", "-1e30", "1e-40", "math.inf", "torch.tensor(0.25)"),
    "enable_gqa": ("True", "False", "1"),
    "return_lse": ("True", "1"),
    "layout": ("ORDER", "layout.tiled((4, 5), 2)", "layout.raster(19)"),
    "backend": ("'cpu'", "'reference'", "'triton'"),
    "strict": ("True", "False"),
}


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A call of attention as text, one to three of its arguments changed."""
    arguments = {"q": "Q", "k": "K", "v": "V"}
    names = st.sampled_from([*arguments, *arguments, *_OPTIONS])
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        if name in arguments and draw(st.integers(0, 9)):
            arguments[name] = draw(st.sampled_from(_CHANGES)).format(arguments[name])
        else:
            usual = _OPTIONS.get(name, STRANGE)
            arguments[name] = draw(st.one_of(st.sampled_from(usual), st.sampled_from(STRANGE)))
    return f"compared({', '.join(f'{name}={value}' for name, value in arguments.items())})"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(PREAMBLE + _ORACLE, seconds=60.0) as started:
        yield started


def check(program: str, worker: Worker) -> None:
    outcome = worker.run(program)
    assert outcome.kind in ("done", "attnc error"), f"{program}\n{outcome}"
    assert outcome.kind == "done" or outcome.message, program


@given(program=programs())
def test_mutated_calls_are_answered_or_refused(program: str, worker: Worker) -> None:
    """Never another exception, a wrong answer, a crash or a hang."""
    check(program, worker)


@pytest.mark.slow
@settings(max_examples=600)
@given(program=programs())
def test_many_mutated_calls_are_answered_or_refused(program: str, worker: Worker) -> None:
    """The same, further from home."""
    check(program, worker)
