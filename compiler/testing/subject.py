"""The laws that ``check`` examines, for one function at one random input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from attnc import ir
from attnc.attend import attention
from attnc.blocks import classify
from attnc.evaluate import evaluate
from attnc.mods import Mod
from attnc.run_table import Kind
from attnc.runtime.reference import reference_attention, reference_mask, reference_scores
from attnc.simplify import simplify
from attnc.testing.programs import Limits
from attnc.testing.recipes import InputsRecipe, MaskRecipe, Shape
from attnc.testing.tolerance import assert_close_to_reference
from attnc.trace import SlotTable, trace_mask, trace_score

_BLOCK = 32


@dataclass(frozen=True)
class Failure:
    """A law that does not hold at ``inputs``; ``point`` are coordinates where it shows."""

    law: str
    details: str
    inputs: InputsRecipe
    point: tuple[int, ...] | None = None
    backend: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is checked: a mask, a score or both, and what the one under test ought to be."""

    mask: Mod | None
    score: Mod | None
    scale: float | None
    expected: Mod | None
    backends: tuple[str, ...]
    device: str = "cpu"
    mask_source: Mod | MaskRecipe | None = None  # the mask as it was given

    def first_failure(self, inputs: InputsRecipe) -> Failure | None:
        """The first law broken at ``inputs``, or None."""
        laws: tuple[Callable[[InputsRecipe], Iterator[Failure]], ...] = (
            self._as_expected,
            self._traced_mask,
            self._traced_score,
            self._kernels,
        )
        return next((failure for law in laws for failure in law(inputs)), None)

    def limits(self, bounds: Limits) -> Limits:
        """``bounds``, lowered to what captured tensors have that coordinates index directly."""
        slots = SlotTable(self.device)
        roots = []
        if self.mask is not None:
            roots.append(trace_mask(self.mask, slots).expr)
        if self.score is not None:
            roots.append(trace_score(self.score, slots).expr)
        sizes: dict[ir.IndexName, int] = {}
        for node in ir.walk(*roots):
            if not isinstance(node, ir.Gather):
                continue
            for index, size in zip(node.indices, slots.tensors[node.slot].shape, strict=True):
                while isinstance(index, ir.Cast):
                    index = index.x
                if isinstance(index, ir.Index):
                    sizes[index.name] = min(size, sizes.get(index.name, size))
        tokens = (sizes.get(name, bounds.length) for name in (ir.IndexName.Q, ir.IndexName.KV))
        return Limits(
            n_batch=min(bounds.n_batch, sizes.get(ir.IndexName.B, bounds.n_batch)),
            n_heads=min(bounds.n_heads, sizes.get(ir.IndexName.H, bounds.n_heads)),
            length=min(bounds.length, *tokens),
        )

    def _as_expected(self, inputs: InputsRecipe) -> Iterator[Failure]:
        if self.expected is None:
            return
        grid = _grid(inputs.shape)
        law = "the function is what it is expected to be"
        if self.score is None:
            assert self.mask is not None
            actual = reference_mask(self.mask, *grid, self.device)
            wanted = reference_mask(self.expected, *grid, self.device)
        else:
            scores = _scores(inputs.shape, self.device)
            actual = reference_scores(self.score, scores)
            wanted = reference_scores(self.expected, scores)
        yield from _difference(law, inputs, _differs(actual, wanted), actual, wanted)

    def _traced_mask(self, inputs: InputsRecipe) -> Iterator[Failure]:
        if self.mask is None:
            return
        slots = SlotTable(self.device)
        mask = simplify(trace_mask(self.mask, slots).expr)
        dense = reference_mask(self.mask, *_grid(inputs.shape), self.device)
        traced = _on_grid(mask, inputs.shape, slots.tensors, self.device)
        law = "the compiled mask is the function"
        yield from _difference(law, inputs, traced != dense, traced, dense)
        table = classify(
            mask,
            slots.tensors,
            n_batch=inputs.shape.n_batch,
            n_heads=inputs.shape.n_heads,
            n_queries=inputs.shape.n_queries,
            n_keys=inputs.shape.n_keys,
            block_m=_BLOCK,
            block_n=_BLOCK,
        ).table
        kinds = torch.from_numpy(table.to_dense())
        wanted = _kinds(dense.cpu())
        kinds = kinds.expand(wanted.shape)
        law = f"tiles of {_BLOCK} x {_BLOCK} are EMPTY (0), PARTIAL (1) or FULL (2) as analysed"
        yield from _difference(law, inputs, kinds != wanted, kinds, wanted, _BLOCK)

    def _traced_score(self, inputs: InputsRecipe) -> Iterator[Failure]:
        if self.score is None:
            return
        slots = SlotTable(self.device)
        expr = simplify(trace_score(self.score, slots, ir.DType.FLOAT64).expr)
        scores = _scores(inputs.shape, self.device)
        wanted = reference_scores(self.score, scores)
        actual = _on_grid(expr, inputs.shape, slots.tensors, self.device, scores)
        law = "the compiled score is the function"
        yield from _difference(law, inputs, _differs(actual, wanted), actual, wanted)

    def _kernels(self, inputs: InputsRecipe) -> Iterator[Failure]:
        if not self.backends:
            return
        q, k, v = (x.to(self.device) for x in inputs.build())
        shape = inputs.shape
        scale = 1.0 / math.sqrt(shape.head_dim) if self.scale is None else self.scale
        reference = reference_attention(
            q, k, v, mask=self.mask, score=self.score, scale=scale, enable_gqa=shape.enable_gqa
        )
        for backend in self.backends:
            results = [
                attention(
                    q,
                    k,
                    v,
                    mask=self.mask,
                    score=self.score,
                    scale=scale,
                    enable_gqa=shape.enable_gqa,
                    return_lse=True,
                    backend=backend,
                )
                for _ in range(2)
            ]
            (out, lse), again = results
            try:
                assert_close_to_reference(
                    out,
                    lse,
                    reference,
                    q.dtype,
                    head_dim=shape.head_dim,
                    n_keys=shape.n_keys,
                    score_scale=_largest_norm(q) * _largest_norm(k) * abs(scale),
                    value_scale=_largest(v),
                )
            except AssertionError as error:
                law = f"the {backend} kernel gives what the float64 reference gives"
                yield Failure(law, str(error), inputs, backend=backend)
            if not (_same_bits(out, again[0]) and _same_bits(lse, again[1])):
                law = f"the {backend} kernel gives the same bits each time"
                yield Failure(law, "Two calls differ.", inputs, backend=backend)


def _grid(shape: Shape) -> tuple[int, int, int, int]:
    return shape.n_batch, shape.n_heads, shape.n_queries, shape.n_keys


def _scores(shape: Shape, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(_grid(shape), dtype=torch.float64, generator=generator)
    return (3 * scores).to(device)


def _on_grid(
    expr: ir.Expr,
    shape: Shape,
    tensors: list[torch.Tensor],
    device: str,
    score: torch.Tensor | None = None,
) -> torch.Tensor:
    """Values of ``expr`` (B, Hq, n_queries, n_keys)."""
    axes = []
    for place, size in enumerate(_grid(shape)):
        sizes = [1, 1, 1, 1]
        sizes[place] = size
        axes.append(torch.arange(size, dtype=torch.int32, device=device).reshape(sizes))
    b, h, q_idx, kv_idx = axes
    values = evaluate(expr, b=b, h=h, q_idx=q_idx, kv_idx=kv_idx, score=score, tensors=tensors)
    return values.expand(_grid(shape))


def _differs(actual: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if actual.dtype == torch.bool:
        return actual != wanted
    # Parts of a score may be computed in float32, whatever the dtype of the score.
    return ~torch.isclose(actual, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


def _difference(
    law: str,
    inputs: InputsRecipe,
    differs: torch.Tensor,
    actual: torch.Tensor,
    wanted: torch.Tensor,
    block: int = 1,
) -> Iterator[Failure]:
    """The first point where two tensors over (B, Hq, queries, keys) differ, if any."""
    places = differs.nonzero()
    if not len(places):
        return
    # Among the differing pairs the one nearest to the origin is the easiest to think about.
    place = places[places[:, 2:].sum(dim=1).argmin()]
    b, h, row, column = place.tolist()
    index = (b, h, row, column)
    yield Failure(
        law,
        f"It is {actual[index].item()}, and ought to be {wanted[index].item()}.",
        inputs,
        point=(b, h, row * block, column * block),
    )


def _kinds(dense: torch.Tensor) -> torch.Tensor:
    """Class of each tile of a dense mask (B, H, n_q_blocks, n_kv_blocks)."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    n_rows, n_columns = -(-n_queries // _BLOCK), -(-n_keys // _BLOCK)
    padding = (0, n_columns * _BLOCK - n_keys, 0, n_rows * _BLOCK - n_queries)
    tiles = (n_batch, n_heads, n_rows, _BLOCK, n_columns, _BLOCK)
    some = torch.nn.functional.pad(dense, padding, value=False).reshape(tiles)
    every = torch.nn.functional.pad(dense, padding, value=True).reshape(tiles)
    has_some = some.any(dim=5).any(dim=3)
    has_all = every.all(dim=5).all(dim=3)
    kinds = torch.where(has_some, int(Kind.PARTIAL), int(Kind.EMPTY))
    return torch.where(has_some & has_all, int(Kind.FULL), kinds).to(torch.int8)


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 1.0


def _largest_norm(x: torch.Tensor) -> float:
    return float(x.double().norm(dim=-1).max()) if x.numel() else 1.0


def _same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    return torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())
