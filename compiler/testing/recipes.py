"""Recipes: how a random mask, score, shape or input was made, as text that can be pasted.

The repr of each recipe is valid Python after ``from attnc.testing import *``, and ``build()``
makes the same thing, tensors included, every time.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Layout = Literal["contiguous", "transposed", "sliced", "expanded"]
Contents = Literal["sorted", "random"]


@dataclass(frozen=True)
class TensorRecipe:
    """A captured tensor of ``shape``; ``dtype`` is the name of torch's, ``seed`` chooses the numbers.

    Integers lie in ``[low, high)``, floats are multiples of 1/16 there, bools are random. With
    ``contents="sorted"`` they ascend along the last dimension, as document ids do.

    ``layout``: ``transposed`` stores the dimensions in reverse order, ``sliced`` takes every second
    element of a larger tensor from an offset, ``expanded`` repeats the first entry along the
    first dimension with stride 0.
    """

    shape: tuple[int, ...]
    dtype: str = "int32"
    low: int = 0
    high: int = 2
    contents: Contents = "random"
    layout: Layout = "contiguous"
    seed: int = 0

    def build(self) -> torch.Tensor:
        """The tensor, the same one each time."""
        generator = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, self.dtype)
        if dtype == torch.bool:
            values = torch.randint(0, 2, self.shape, generator=generator).bool()
        elif dtype.is_floating_point:
            sixteenths = (16 * self.low, 16 * self.high)
            values = torch.randint(*sixteenths, self.shape, generator=generator) / 16
        else:
            values = torch.randint(self.low, self.high, self.shape, generator=generator)
        if self.contents == "sorted" and values.dim():
            values = values.sort(dim=-1).values
        return laid_out(values.to(dtype), self.layout)


def laid_out(values: torch.Tensor, layout: Layout) -> torch.Tensor:
    """A tensor equal to ``values`` (but for "expanded", see TensorRecipe) with other strides."""
    match layout:
        case "contiguous":
            return values.contiguous()
        case "transposed":
            reverse = tuple(reversed(range(values.dim())))
            return values.permute(reverse).contiguous().permute(reverse)
        case "sliced":
            wide = values.new_zeros((*values.shape[:-1], 2 * values.shape[-1] + 3))
            view = wide[..., 3::2] if values.dim() else wide
            view.copy_(values)
            return view
        case "expanded":
            return values[:1].expand(values.shape) if values.dim() else values


@dataclass(frozen=True)
class MaskRecipe:
    """The mask_mod ``lambda b, h, q_idx, kv_idx: source``, where ``t0, t1, ...`` are ``tensors``."""

    source: str
    tensors: tuple[TensorRecipe, ...] = ()

    def build(self) -> Callable[..., Any]:
        """A new function over newly made tensors."""
        return _function(f"lambda b, h, q_idx, kv_idx: {self.source}", self.tensors)


@dataclass(frozen=True)
class ScoreRecipe:
    """The score_mod ``lambda score, b, h, q_idx, kv_idx: source``, with ``tensors`` as for masks."""

    source: str
    tensors: tuple[TensorRecipe, ...] = ()

    def build(self) -> Callable[..., Any]:
        """A new function over newly made tensors."""
        return _function(f"lambda score, b, h, q_idx, kv_idx: {self.source}", self.tensors)


def _function(source: str, tensors: tuple[TensorRecipe, ...]) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"torch": torch}
    namespace |= {f"t{number}": recipe.build() for number, recipe in enumerate(tensors)}
    # Under a name of its own, so that errors can show the line.
    filename = f"<recipe {source}>"
    linecache.cache[filename] = (len(source), None, [source + "\n"], filename)
    function: Callable[..., Any] = eval(compile(source, filename, "eval"), namespace)
    return function


@dataclass(frozen=True)
class Limits:
    """Coordinates that a function must bear: all below these.

    Attributes:
        n_batch: For b.
        n_heads: For h.
        length: For q_idx and kv_idx, in tokens.
    """

    n_batch: int = 2
    n_heads: int = 6
    length: int = 260


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention.

    Attributes:
        n_batch, n_heads, n_queries, head_dim: The axes of q.
        n_kv_batch, n_kv_heads, n_keys, head_dim: Those of k.
        value_dim: The last axis of v, and of out.
    """

    n_batch: int = 1
    n_heads: int = 1
    n_queries: int = 16
    n_keys: int = 16
    head_dim: int = 16
    value_dim: int = 16
    n_kv_heads: int = 1
    n_kv_batch: int = 1

    @property
    def enable_gqa(self) -> bool:
        """Whether heads of k and v serve groups of query heads."""
        return self.n_kv_heads != self.n_heads


@dataclass(frozen=True)
class InputsRecipe:
    """Normally distributed q, k, v; ``magnitude`` multiplies q, so 100 gives huge scores.

    ``dtype`` is the name of torch's, ``layout`` as for ``TensorRecipe``: ``transposed`` is (batch,
    length, heads, head_dim) in memory, as projections leave them. ``shape`` is a ``Shape``; ``seed``
    chooses the numbers.
    """

    shape: Shape
    dtype: str = "float32"
    layout: Layout = "contiguous"
    magnitude: float = 1.0
    seed: int = 0

    def build(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k, v, the same ones each time."""
        shape = self.shape
        generator = torch.Generator().manual_seed(self.seed)

        def random(*sizes: int) -> torch.Tensor:
            values = torch.randn(sizes, generator=generator, dtype=torch.float64)
            return values.to(getattr(torch, self.dtype))

        q = random(shape.n_batch, shape.n_heads, shape.n_queries, shape.head_dim) * self.magnitude
        k = random(shape.n_kv_batch, shape.n_kv_heads, shape.n_keys, shape.head_dim)
        v = random(shape.n_kv_batch, shape.n_kv_heads, shape.n_keys, shape.value_dim)
        return strided(q, self.layout), strided(k, self.layout), strided(v, self.layout)


def strided(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """``x`` (batch, heads, length, width) as ``InputsRecipe`` has it in memory."""
    if layout == "transposed":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return laid_out(x, layout)
