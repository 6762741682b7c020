"""``Case``: the function under test at one random input, with what laws compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from attnc.attend import attend
from attnc.mods import and_masks, noop_mask
from attnc.runtime.reference import (
    ReferenceResult,
    reference_attention,
    reference_mask,
    reference_scores,
)
from attnc.testing.gradients import Expected, expected_gradients, number_dtype
from attnc.testing.recipes import InputsRecipe, Shape, strided
from attnc.testing.search import FEW_QUERIES, ODD_SIZES, USUAL_SIZES
from attnc.testing.subject import Subject

if TYPE_CHECKING:
    from attnc.testing.ahead import Ahead

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a kernel gave.

    Attributes:
        out: (B, Hq, n_queries, value_dim), in the dtype of q.
        lse: (B, Hq, n_queries), natural logarithm.
        gradients: Of ``Case.differentiated``, in that order; none where no pass was asked for.
        max_scores: (B, Hq, n_queries), where ``Case.wants_max``.
    """

    out: torch.Tensor
    lse: torch.Tensor
    gradients: tuple[torch.Tensor, ...] = ()
    max_scores: torch.Tensor | None = None


class Case:
    """A function at one input. Everything is computed when it is first asked for.

    Attributes:
        subject: What is checked.
        recipe: How the input was made.

    Laws are given one. ``ahead`` builds kernels of several cases at once, ``is_padded`` says that
    keys are hidden beyond a length.
    """

    def __init__(
        self,
        subject: Subject,
        recipe: InputsRecipe,
        ahead: Ahead | None = None,
        *,
        is_padded: bool = False,
    ) -> None:
        self.subject = subject
        self.recipe = recipe
        self._ahead = ahead
        self._is_padded = is_padded
        self._outcomes: dict[str, Outcome] = {}

    def at(self, recipe: InputsRecipe) -> Case:
        """The same functions at another input, which ``recipe`` makes."""
        return Case(self.subject, recipe, self._ahead, is_padded=self._is_padded)

    @property
    def shape(self) -> Shape:
        """Sizes of q, k and v."""
        return self.recipe.shape

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """(B, Hq, n_queries, n_keys)."""
        shape = self.shape
        return shape.n_batch, shape.n_heads, shape.n_queries, shape.n_keys

    @property
    def backends(self) -> tuple[str, ...]:
        """Names for ``outcome``."""
        return self.subject.backends

    @property
    def with_gradients(self) -> bool:
        """Whether the backward pass is examined here: at usual sizes, or odd ones with hidden keys.

        Each kernel takes a second to build, so not at all sizes.
        """
        sizes = ODD_SIZES if self._is_padded else USUAL_SIZES
        return self.subject.with_gradients and self._sizes == sizes and self._has_many

    @property
    def wants_max(self) -> bool:
        """Whether the maxima of scores are examined, by kernels that raise them at each tile."""
        return self._is_padded

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.shape.head_dim, self.shape.value_dim

    @property
    def _has_many(self) -> bool:
        # Kernels for few queries are others.
        return self.shape.n_queries > FEW_QUERIES

    @property
    def scale(self) -> float:
        """Factor of q . k."""
        given = self.subject.scale
        return 1.0 / math.sqrt(self.shape.head_dim) if given is None else given

    @cached_property
    def inputs(self) -> Tensors:
        """q, k, v."""
        q, k, v = (x.to(self.subject.device) for x in self.recipe.build())
        return q, k, v

    @property
    def dtype(self) -> torch.dtype:
        """Of q, k and v."""
        return self.inputs[0].dtype

    @property
    def is_single(self) -> bool:
        """Whether scores are computed in float32, at least in parts."""
        return self.dtype is not torch.float64 or self.subject.computes_in_float32

    @cached_property
    def mask_values(self) -> torch.Tensor:
        """(B, Hq, n_queries, n_keys) bool: the mask, by calling it at every pair."""
        mask = self.subject.mask
        with number_dtype(self.dtype):
            return reference_mask(noop_mask if mask is None else mask, *self.grid, self._device)

    @cached_property
    def scores(self) -> torch.Tensor:
        """(B, Hq, n_queries, n_keys) float64: scores of q and k after the score_mod."""
        q, k, _ = self.inputs
        n_batch, n_heads, *_ = self.grid
        keys = k.double().repeat_interleave(n_heads // k.shape[1], dim=1)
        scores = q.double() @ keys.expand(n_batch, *keys.shape[1:]).mT * self.scale
        return self.scored(scores)

    @cached_property
    def visible(self) -> torch.Tensor:
        """(B, Hq, n_queries, n_keys) bool: what is masked neither by the mask nor by -inf."""
        if self.subject.score is None:
            return self.mask_values
        return self.mask_values & (self.scores != -math.inf)

    @cached_property
    def reference(self) -> ReferenceResult:
        """Dense attention in float64."""
        with torch.no_grad(), number_dtype(self.dtype):
            return reference_attention(
                *self.inputs,
                mask=self.subject.mask,
                score=self.subject.score,
                scale=self.scale,
                enable_gqa=True,
            )

    @cached_property
    def cotangents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of out and lse that the backward pass starts from, laid out as q is; where that
        is expanded, that of out is one number at every place, as ``out.sum()`` gives it."""
        generator = torch.Generator().manual_seed(self.recipe.seed + 1)
        shape = self.shape
        stat_dtype = torch.float64 if self.dtype is torch.float64 else torch.float32
        of_out = torch.randn(*self.grid[:3], shape.value_dim, generator=generator)
        of_lse = torch.randn(self.grid[:3], generator=generator)
        of_out, of_lse = of_out.to(self._device, self.dtype), of_lse.to(self._device, stat_dtype)
        if self.recipe.layout == "expanded":
            return of_out.new_ones(()).expand(of_out.shape), of_lse
        return strided(of_out, self.recipe.layout), of_lse

    @property
    def differentiated(self) -> tuple[str, ...]:
        """Names of what has a gradient."""
        captured = self.subject.differentiable
        return ("q", "k", "v", *(f"captured tensor {number}" for number in range(len(captured))))

    @cached_property
    def expected_gradients(self) -> Expected:
        """By autograd through dense attention in float64."""
        captured = self.subject.differentiable
        with self.subject.following():
            found = expected_gradients(
                self.inputs,
                self.subject.mask,
                self.subject.score,
                captured,
                *self.cotangents,
                self.scale,
            )
        return found

    def scored(self, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` (B, Hq, n_queries, n_keys), float64, after the score_mod."""
        if self.subject.score is None:
            return scores
        with torch.no_grad(), number_dtype(self.dtype):
            return reference_scores(self.subject.score, scores)

    def outcome(self, backend: str) -> Outcome:
        """What the kernel of ``backend`` gives, in both passes if gradients are examined."""
        if backend not in self._outcomes:
            self._outcomes[backend] = self.run(backend)
        return self._outcomes[backend]

    def run(
        self, backend: str, inputs: Tensors | None = None, cotangents: Sequence[torch.Tensor] = ()
    ) -> Outcome:
        """Runs the kernel of ``backend`` anew.

        Args:
            backend: One of ``backends``.
            inputs: q, k, v; the case's own if None.
            cotangents: Gradients of out and lse; the case's own if empty.
        """
        q, k, v = (x.detach() for x in inputs or self.inputs)
        if backend == "cpu" and self._ahead is not None:
            self._ahead.require(self, self._is_padded)
        with_gradients = self.with_gradients
        leaves = (q, k, v)
        if with_gradients:
            leaves = (q.requires_grad_(), k.requires_grad_(), v.requires_grad_())
        with self.subject.following(), torch.set_grad_enabled(with_gradients):
            out, lse, max_scores = attend(
                *leaves,
                mask=self.subject.mask,
                score=self.subject.score,
                scale=self.scale,
                enable_gqa=k.shape[1] != q.shape[1],
                wants_lse=True,
                wants_max=self.wants_max,
                backend=backend,
            )
            assert lse is not None
            if not with_gradients:
                return Outcome(out, lse, max_scores=max_scores)
            gradients = torch.autograd.grad(
                (out, lse),
                (*leaves, *self.subject.differentiable),
                tuple(cotangents) or self.cotangents,
                materialize_grads=True,
            )
        maxima = None if max_scores is None else max_scores.detach()
        return Outcome(out.detach(), lse.detach(), gradients, maxima)

    @cached_property
    def padded(self) -> Case | None:
        """The same with keys hidden beyond a length per batch: 0, 1 or all of them, by turns.

        None where that would take more kernels: but for odd sizes of heads and many queries.
        """
        shape = self.shape
        if not (self._sizes == ODD_SIZES and self._has_many and shape.n_keys):
            return None
        choices = (0, shape.n_keys, 1)
        found = [choices[(self.recipe.seed + b) % 3] for b in range(shape.n_batch)]
        lengths = torch.tensor(found, dtype=torch.int32, device=self._device)

        def within_length(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return kv_idx < lengths[b]

        mask = self.subject.mask
        padded = within_length if mask is None else and_masks(mask, within_length)
        subject = replace(self.subject, mask=padded)
        return Case(subject, self.recipe, self._ahead, is_padded=True)

    @property
    def variants(self) -> list[Case]:
        """Itself, and with hidden keys where there is such a case."""
        return [each for each in (self, self.padded) if each is not None]

    @property
    def _device(self) -> torch.device:
        return torch.device(self.subject.device)
