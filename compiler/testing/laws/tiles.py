"""Laws of the analysis: tiles are classified exactly, and loop bounds agree with them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from attnc.blocks import classify
from attnc.bounds import ClosedForm
from attnc.evaluate import evaluate
from attnc.intervals import Facts, never_wraps
from attnc.run_table import Kind
from attnc.testing.case import Case
from attnc.testing.laws.registry import Failure, law

_BLOCK = 16


def _has_mask(case: Case) -> bool:
    return case.subject.mask is not None and 0 not in case.grid


@law(
    "tiles",
    f"tiles of {_BLOCK} x {_BLOCK} are EMPTY (0), PARTIAL (1) or FULL (2) as analysed",
    applies=_has_mask,
)
def tiles(case: Case) -> Iterator[Failure]:
    program, shape = case.subject.program, case.shape
    assert program.mask is not None
    table = classify(
        program.mask,
        program.tensors,
        n_batch=shape.n_batch,
        n_heads=shape.n_heads,
        n_queries=shape.n_queries,
        n_keys=shape.n_keys,
        block_m=_BLOCK,
        block_n=_BLOCK,
    ).table
    wanted = tile_kinds(case.mask_values.cpu(), _BLOCK)
    found = torch.from_numpy(table.to_dense()).expand(wanted.shape)
    yield from _differing(found, wanted, found != wanted)


@law(
    "loop-bounds",
    f"loop bounds in closed form agree with tiles of {_BLOCK} x {_BLOCK}",
    applies=lambda case: _has_mask(case) and _form_of(case) is not None,
)
def loop_bounds(case: Case) -> Iterator[Failure]:
    form = _form_of(case)
    assert form is not None
    wanted = tile_kinds(case.mask_values.cpu(), _BLOCK)
    found = torch.zeros_like(wanted)
    program, shape = case.subject.program, case.shape
    for b in range(shape.n_batch):
        for h in range(shape.n_heads):
            uniforms = {
                name: int(
                    evaluate(
                        expr,
                        b=b,
                        h=h,
                        q_idx=0,
                        kv_idx=0,
                        tensors=program.tensors,
                        params=program.lifted.values,
                    )
                )
                for name, expr in form.uniforms.items()
            }
            for q_block in range(wanted.shape[2]):
                lengths = (shape.n_queries, shape.n_keys)
                runs = form.evaluate(q_block, *lengths, program.lifted.values, uniforms)
                for start, stop, kind in runs:
                    found[b, h, q_block, start:stop] = int(kind)
    # A tile may be visited in vain, or called PARTIAL where it is FULL.
    yield from _differing(found, wanted, (found != wanted) & (found != int(Kind.PARTIAL)))


def _form_of(case: Case) -> ClosedForm | None:
    """The closed form of the mask, where kernels use it at these lengths."""
    subject, shape = case.subject, case.shape
    lifted, mask = subject.program.lifted.exprs[0], subject.program.mask
    if lifted is None or mask is None:
        return None
    form = subject.closed_form(_BLOCK)
    if form is None:
        return None
    is_exact = never_wraps(
        [mask],
        Facts(subject.program.tensors),
        n_batch=shape.n_batch,
        n_heads=shape.n_heads,
        n_queries=shape.n_queries,
        n_keys=shape.n_keys,
    )
    return form if is_exact else None


def tile_kinds(dense: torch.Tensor, block: int) -> torch.Tensor:
    """Class of each tile of a dense mask: (B, H, n_q_blocks, n_kv_blocks) int8."""
    n_batch, n_heads, n_queries, n_keys = dense.shape
    n_rows, n_columns = -(-n_queries // block), -(-n_keys // block)
    padding = (0, n_columns * block - n_keys, 0, n_rows * block - n_queries)
    shape = (n_batch, n_heads, n_rows, block, n_columns, block)
    some = torch.nn.functional.pad(dense, padding, value=False).reshape(shape)
    every = torch.nn.functional.pad(dense, padding, value=True).reshape(shape)
    has_some = some.any(dim=5).any(dim=3)
    has_all = every.all(dim=5).all(dim=3)
    kinds = torch.where(has_some, int(Kind.PARTIAL), int(Kind.EMPTY))
    return torch.where(has_some & has_all, int(Kind.FULL), kinds).to(torch.int8)


def _differing(
    found: torch.Tensor, wanted: torch.Tensor, differs: torch.Tensor
) -> Iterator[Failure]:
    places = differs.nonzero()
    if not len(places):
        return
    b, h, row, column = places[places[:, 2:].sum(dim=1).argmin()].tolist()
    kinds = [int(kinds[b, h, row, column]) for kinds in (found, wanted)]
    point = (b, h, row * _BLOCK, column * _BLOCK)
    yield Failure(f"It is {kinds[0]}, and ought to be {kinds[1]}.", point)
