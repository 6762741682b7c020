"""Dense twins of the systems of the gallery, and attention by them in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from examples.systems.catalogue import Parts, System, load_systems

SYSTEMS = load_systems()
Data = Mapping[str, torch.Tensor]
Twin = Callable[[Data], "Dense"]


@dataclass(frozen=True)
class Dense:
    """What a system does to all pairs, written down without its mods.

    Attributes:
        visible: bool, broadcastable to (B, H, n_queries, n_keys); None: all.
        score: From scaled scores (B, H, n_queries, n_keys), float64, to what softmax takes; None:
            as they are.
    """

    visible: torch.Tensor | None = None
    score: Callable[[torch.Tensor], torch.Tensor] | None = None


TWINS: dict[str, Twin] = {}


def dense(twin: Twin) -> Twin:
    """Enters the dense twin of the system whose builder has the same name."""
    assert twin.__name__ not in TWINS, f"two twins are called {twin.__name__}"
    TWINS[twin.__name__] = twin
    return twin


def load_twins() -> dict[str, Twin]:
    """All twins, by name; imports every module of them."""
    for path in sorted(Path(__file__).parent.glob("dense_*.py")):
        import_module(f"gallery.{path.stem}")
    return TWINS


@dataclass(frozen=True)
class Outcome:
    """out, lse, and gradients of q, k, v and learned tensors; ``visible`` as in ``Dense``."""

    out: torch.Tensor
    lse: torch.Tensor
    gradients: tuple[torch.Tensor, ...]
    visible: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """Inputs of a system and gradients of its outputs, float32, the same ones each time."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grad_out: torch.Tensor
    grad_lse: torch.Tensor


def problem_of(system: System, head_dim: int = 16) -> Problem:
    n_batch, n_heads, n_queries, n_keys = system.shape
    generator = torch.Generator().manual_seed(0)

    def drawn(n: int, *width: int) -> torch.Tensor:
        return torch.randn(n_batch, n_heads, n, *width, generator=generator)

    inputs = (drawn(n_queries, head_dim), drawn(n_keys, head_dim), drawn(n_keys, head_dim))
    return Problem(*inputs, drawn(n_queries, head_dim), drawn(n_queries))


def dense_attention(twin: Twin, parts: Parts, problem: Problem) -> Outcome:
    """Attention by a twin, in float64 and by autograd. Rows that see no key give 0."""
    q, k, v = (x.double().requires_grad_() for x in (problem.q, problem.k, problem.v))
    data = {
        name: tensor.detach().double().requires_grad_() if name in parts.learned else tensor
        for name, tensor in parts.data.items()
    }
    found = twin(data)
    shape = (*q.shape[:3], k.shape[2])
    visible = torch.ones(1, dtype=torch.bool) if found.visible is None else found.visible
    assert visible.dtype is torch.bool
    visible = visible.expand(shape)
    scores = q @ k.mT * q.shape[3] ** -0.5
    if found.score is not None:
        scores = found.score(scores)
    scores = scores.masked_fill(~visible, -torch.inf)
    is_empty = (scores == -torch.inf).all(-1)
    filled = torch.where(is_empty[..., None], 0.0, scores)
    weights = torch.where(is_empty[..., None], 0.0, filled.softmax(-1))
    out = weights @ v
    lse = torch.where(is_empty, 0.0, filled.logsumexp(-1))
    learned = [data[name] for name in parts.learned]
    gradients = torch.autograd.grad(
        (out, lse),
        (q, k, v, *learned),
        (problem.grad_out.double(), torch.where(is_empty, 0.0, problem.grad_lse.double())),
        materialize_grads=True,
    )
    lse = torch.where(is_empty, -torch.inf, lse)
    return Outcome(out.detach(), lse.detach(), gradients, visible)


def assert_same_outcome(
    name: str,
    parts: Parts,
    out: torch.Tensor,
    lse: torch.Tensor,
    gradients: list[torch.Tensor],
    expected: Outcome,
) -> None:
    """Passes if float32 results are those of the twin but for rounding."""
    names = ("out", "lse", "dq", "dk", "dv", *parts.learned)
    pairs = zip(
        names,
        (out, lse, *gradients),
        (expected.out, expected.lse, *expected.gradients),
        strict=True,
    )
    for what, actual, wanted in pairs:
        size = float(wanted[wanted.isfinite()].abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(
            actual.double(),
            wanted,
            rtol=1e-4,
            atol=3e-5 * max(size, 1.0),
            msg=lambda text, what=what: f"{what} of {name}: {text}",
        )
