"""From what a forward call saved to its gradients: backward kernels, and what needs none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from attnc.ir import Expr, Gather, IndexName, reads_score
from attnc.plan import Wanted
from attnc.runtime.call import BackwardCall, Call
from attnc.runtime.cleared import cleared
from attnc.runtime.composed import Attention, composed_gradients, derivative_of
from attnc.runtime.dispatch import TracedProgram, captured_on_device, needs_wide_index
from attnc.runtime.front import Backend, entry_for, table_for
from attnc.runtime.layout import layout_of
from attnc.scatter import coordinates_of
from attnc.storage import require_memory

# Elements of a gradient that does not fit the caches.
_LARGE = 1 << 20


@lru_cache(maxsize=1024)
def differentiable_slots(score: Expr | None) -> frozenset[int]:
    """Captured tensors that reach the modified score by floats alone.

    Not those that only masks, comparisons, conditions and indices read: as in PyTorch, nothing
    flows back through these.
    """
    if score is None:
        return frozenset()
    found = set()
    seen: set[Expr] = set()
    stack = [score]
    while stack:
        node = stack.pop()
        if node in seen or not node.dtype.is_float:
            continue
        seen.add(node)
        if isinstance(node, Gather):
            found.add(node.slot)
        else:
            stack.extend(node.children)
    return frozenset(found)


def gradients(
    program: TracedProgram,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    backend: Backend,
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    needs: Sequence[bool],
    *,
    strict: bool,
) -> list[torch.Tensor | None]:
    """Gradients of q, k, v and captured tensors, by a backward kernel that computes no others.

    Args:
        program: What was computed.
        q, k, v: As in ``Call``.
        out, lse: What the forward pass gave.
        scale: Factor of q . k.
        backend: "reference" computes all of it densely, in float64.
        grad_out: Gradient of ``out``, any strides; None for 0.
        grad_lse: Gradient of ``lse``; None for 0.
        needs: Which gradients are wanted: of q, k, v, then of each captured tensor.
        strict: As in ``attention``.

    Returns:
        One tensor per wanted gradient, shaped and typed as its input; None for the others.

    Raises:
        FreedStorageError: A tensor has lost memory since the forward pass.
    """
    grad_out, grad_lse = _in_memory(grad_out), _in_memory(grad_lse)
    require_memory_of_pass((q, k, v, *program.tensors), grad_out, grad_lse)
    require_memory(out=out, lse=lse)
    wanted = wanted_of(program, needs)
    found = _places((q, k, v, *program.tensors), needs, wanted)
    layout = layout_of(q, k, v)
    if 0 in layout.lengths or (grad_out is None and grad_lse is None):
        return [None if gradient is None else gradient.zero_() for gradient in found]
    if wanted == Wanted(False, False, False):
        return found
    is_too_narrow = backend == "triton" and v.shape[3] == 0  # for a tile of values
    if backend == "reference" or is_too_narrow:
        attention = Attention(program.mask, program.score, program.given, scale)
        qkv = (q.double(), k.double(), v.double())
        exact = composed_gradients(attention, *qkv, program.tensors, grad_out, grad_lse, needs)
        for place, gradient in zip(found, exact, strict=True):
            if place is not None:
                place.zero_() if gradient is None else place.copy_(gradient)
        return found

    tensors = captured_on_device(program.tensors, q) if program.tensors else ()
    # A gradient that is not there is one 0, seen everywhere.
    grad_out = out.new_zeros(()).expand(out.shape) if grad_out is None else grad_out.resolve_neg()
    given = program.given
    block = None if given is None else (given.block_m, given.block_n)
    is_wide = needs_wide_index(backend, tensors, q, k, v, out, grad_out)
    asked = (False, False, strict, wanted)
    slots = tuple(program.slots)
    key = (layout, program.mask, program.score, slots, block, is_wide, backend, asked)
    entry = entry_for(key, q, v, tensors)
    table = None
    if entry.kernel.uses_table:
        table = table_for(entry, given, tensors, layout.lengths)
    stored = _stored(program, wanted, tensors, layout.lengths) if backend == "cpu" else ()
    by_captured = [_captured_place(tensors[slot], lse, slot in stored) for slot in wanted.captured]
    entry.kernel.run_backward(
        BackwardCall(
            Call(q, k, v, out, lse, None, scale, entry.params, tensors, table, layout),
            grad_out,
            None if grad_lse is None else grad_lse.resolve_neg().contiguous(),
            found[0] if wanted.query else None,
            found[1] if wanted.key else None,
            found[2] if wanted.value else None,
            by_captured,
            [slot in stored for slot in wanted.captured],
        )
    )
    for slot, gradient in zip(wanted.captured, by_captured, strict=True):
        tensor = program.tensors[slot]
        found[3 + slot] = gradient.to(tensor.device, tensor.dtype)
    return found


def _in_memory(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """``gradient``, or None for PyTorch's tensor of zeros without memory."""
    return None if gradient is None or gradient._is_zerotensor() else gradient


def _places(
    inputs: Sequence[torch.Tensor], needs: Sequence[bool], wanted: Wanted
) -> list[torch.Tensor | None]:
    """Where gradients go: 0 where no kernel writes, None where none is needed."""
    by_kernel = (wanted.query, wanted.key, wanted.value)
    written = {number for number, is_wanted in enumerate(by_kernel) if is_wanted}
    written |= {3 + slot for slot in wanted.captured}
    found: list[torch.Tensor | None] = [None] * len(inputs)
    for number, (x, needed) in enumerate(zip(inputs, needs, strict=True)):
        if needed:
            empty = empty_gradient(x, number)
            found[number] = empty if number in written else empty.zero_()
    return found


def _captured_place(tensor: torch.Tensor, lse: torch.Tensor, is_stored: bool) -> torch.Tensor:
    """Where a kernel puts the gradient of ``tensor``; sums are in the dtype of ``lse``."""
    if is_stored:
        return cleared(tensor.shape, _stored_dtype(tensor.dtype, lse.dtype))
    return torch.empty(tensor.shape, dtype=lse.dtype, device=lse.device)


def require_memory_of_pass(
    inputs: Sequence[torch.Tensor],
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
) -> None:
    """Raises FreedStorageError if q, k, v, a captured tensor or a gradient has lost memory."""
    q, k, v, *captured = inputs
    require_memory(q=q, k=k, v=v)
    for tensor in captured:
        require_memory(**{"a captured tensor": tensor})
    if grad_out is not None:
        require_memory(grad_out=grad_out)
    if grad_lse is not None:
        require_memory(grad_lse=grad_lse)


def _stored(
    program: TracedProgram,
    wanted: Wanted,
    tensors: Sequence[torch.Tensor],
    lengths: tuple[int, int, int, int],
) -> frozenset[int]:
    """Slots of large tensors of which no two pairs read one element, out of range neither."""
    if program.score is None or not wanted.captured:
        return frozenset()
    extents = dict(zip((IndexName.B, IndexName.H, IndexName.Q, IndexName.KV), lengths, strict=True))
    scatters = derivative_of(program.score, wanted.captured).captured
    by_slot = {slot: [s for s in scatters if s.slot == slot] for slot in wanted.captured}
    found = set()
    for slot, (scatter, *more) in by_slot.items():
        coordinates = coordinates_of(scatter)
        if more or coordinates is None or tensors[slot].numel() < _LARGE:
            continue
        sizes = dict(zip(coordinates, tensors[slot].shape, strict=True))
        if all(sizes.get(name, 1) >= extent for name, extent in extents.items()):
            found.add(slot)
    return frozenset(found)


def _stored_dtype(dtype: torch.dtype, accumulated: torch.dtype) -> torch.dtype:
    is_short = dtype.itemsize == 2 and accumulated is torch.float32
    return dtype if is_short else accumulated


def empty_gradient(x: torch.Tensor, number: int) -> torch.Tensor:
    """Uninitialised gradient of input ``number``, of q, k, v and the captured tensors."""
    # Those of captured tensors are summed in other dtypes, hence copied, into memory of their own.
    return torch.empty_like(x) if number < 3 else x.new_empty(x.shape)


def wanted_of(program: TracedProgram, needs: Sequence[bool]) -> Wanted:
    """What a kernel must compute of what is needed: what is 0 whatever the inputs is left out."""
    score = program.score
    if score is None:
        return Wanted(needs[0], needs[1], needs[2])
    slots = tuple(slot for slot, needed in enumerate(needs[3:]) if needed)
    scattered = {scatter.slot for scatter in derivative_of(score, slots).captured}
    is_live = reads_score(score)
    return Wanted(
        needs[0] and is_live,
        needs[1] and is_live,
        needs[2],
        tuple(slot for slot in slots if slot in scattered and program.tensors[slot].numel()),
    )
