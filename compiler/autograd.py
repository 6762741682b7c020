"""Attention with a graph: what autograd and ``torch.func.grad`` see of a kernel.

The backward pass is a function with a derivative too. That one is composed of torch operations,
with everything of size (B, Hq, n_queries, n_keys) in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from attnc.errors import FunctionTransformError
from attnc.ir import Expr, SlotType
from attnc.run_table import RunTable
from attnc.runtime.composed import Attention, composed_gradients
from attnc.runtime.dispatch import Outputs, TracedProgram, captured_on_device, run_program
from attnc.runtime.front import Backend
from attnc.runtime.gradients import differentiable_slots, gradients, require_memory_of_pass

Gradients = Sequence[torch.Tensor | None]
_N_INPUTS = 3  # q, k and v; captured tensors follow


class Differentiated(Protocol):
    """Attention for some mask and score, as ``attend_followed`` needs it."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Outputs:
        """The outputs, log-sum-exp always among them."""

    def gradients(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        tensors: Sequence[torch.Tensor],
        grad_out: torch.Tensor | None,
        grad_lse: torch.Tensor | None,
        needs: Sequence[bool],
    ) -> Gradients:
        """As ``composed_gradients``, by kernels."""

    def attention(
        self, q: torch.Tensor, k: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Attention:
        """What ``composed_gradients`` is to differentiate."""


@dataclass(frozen=True)
class KernelCall:
    """A traced mask and score, run by kernels of a backend; ``mask, ..., given`` as in
    ``TracedProgram``."""

    mask: Expr | None
    score: Expr | None
    slots: tuple[SlotType, ...]
    given: RunTable | None
    scale: float
    backend: Backend
    wants_max: bool
    strict: bool

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Outputs:
        return run_program(
            q,
            k,
            v,
            self._program(tensors),
            self.scale,
            self.backend,
            wants_lse=True,
            wants_max=self.wants_max,
            strict=self.strict,
        )

    def gradients(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        tensors: Sequence[torch.Tensor],
        grad_out: torch.Tensor | None,
        grad_lse: torch.Tensor | None,
        needs: Sequence[bool],
    ) -> Gradients:
        program = self._program(tensors)
        return gradients(
            program,
            q,
            k,
            v,
            out,
            lse,
            self.scale,
            self.backend,
            grad_out,
            grad_lse,
            needs,
            strict=self.strict,
        )

    def attention(
        self, q: torch.Tensor, k: torch.Tensor, tensors: Sequence[torch.Tensor]
    ) -> Attention:
        return Attention(self.mask, self.score, self.given, self.scale)

    def _program(self, tensors: Sequence[torch.Tensor]) -> TracedProgram:
        return TracedProgram(self.mask, self.score, tensors, self.slots, self.given)


def attend_with_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    program: TracedProgram,
    scale: float,
    backend: Backend,
    wants_lse: bool,
    wants_max: bool,
    strict: bool,
) -> Outputs:
    """As ``run_program``, for inputs or captured tensors that something differentiates.

    Raises:
        FunctionTransformError: An input belongs to vmap or forward-mode differentiation.
    """
    mask, score, _, slots, given = program
    tensors = captured_on_device(program.tensors, q)
    if not _is_followed(q, k, v, *tensors):
        # A transform of something else wraps whatever is made inside it, outputs of kernels too.
        with torch._C._DisableFuncTorch():
            return run_program(
                q,
                k,
                v,
                program,
                scale,
                backend,
                wants_lse=wants_lse,
                wants_max=wants_max,
                strict=strict,
            )
    call = KernelCall(mask, score, tuple(slots), given, scale, backend, wants_max, strict)
    outputs = attend_followed(call, q, k, v, tensors, differentiable_slots(score))
    return outputs if wants_lse else outputs._replace(lse=None)


def attend_followed(
    call: Differentiated,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    slots: frozenset[int],
    is_operator: bool = False,
) -> Outputs:
    """Outputs of ``call`` with a graph.

    Args:
        call: What is computed.
        q, k, v: As in ``attention``.
        tensors: Captured tensors by slot number, and perhaps others that only ``call`` knows.
        slots: Numbers of those that a gradient flows back to.
        is_operator: This is what an operator does where autograd looks at it.
    """
    tensors = [
        t if slot in slots and not t.is_inference() else _constant(t)
        for slot, t in enumerate(tensors)
    ]
    inputs = (q, k, v, *tensors)
    is_transformed = torch._C._are_functorch_transforms_active()
    is_followed = is_transformed or forward_ad._current_level >= 0
    if not (is_followed or any(x.requires_grad for x in inputs)):
        return call.forward(q, k, v, tensors)
    if not is_transformed:
        found = _applied(_Attention, call, *inputs)
    elif not is_operator:
        found = _applied(_TransformedAttention, call, *inputs)
    else:  # the dispatcher has chosen the transform already
        with enable_single_level_autograd_function():
            found = _applied(_OperatorAttention, call, *inputs)
    return Outputs(found[0], found[1], found[2] if len(found) > 2 else None)


def _is_followed(*inputs: torch.Tensor) -> bool:
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return forward_ad._current_level >= 0 or any(x.requires_grad or is_wrapped(x) for x in inputs)


def _applied(function: Any, *arguments: Any) -> tuple[torch.Tensor, ...]:
    return function.apply(*arguments)  # type: ignore[no-any-return]


def _constant(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, as one that a graph can hold without following it."""
    if tensor.is_inference():
        return tensor.clone()
    return tensor.detach() if tensor.requires_grad else tensor


def _named(number: int, inputs: Sequence[torch.Tensor]) -> str:
    if number < _N_INPUTS:
        return "qkv"[number]
    return f"captured tensor {number - _N_INPUTS} of shape {tuple(inputs[number].shape)}"


class _Attention(torch.autograd.Function):
    """Arguments: a ``Differentiated``, q, k, v, captured tensors. Results: those of ``Outputs``."""

    @staticmethod
    def forward(ctx: Any, call: Differentiated, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = _outputs_of(call, inputs)
        _remember(ctx, call, inputs, found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return _backward(ctx, *grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise FunctionTransformError(what="an input")


class _OperatorAttention(_SingleLevelFunction):
    """``_Attention`` for one transform of torch.func."""

    forward = _Attention.forward
    backward = _Attention.backward
    jvp = _Attention.jvp


class _TransformedAttention(torch.autograd.Function):
    """``_Attention`` in the form that torch.func asks for, which costs more per call."""

    @staticmethod
    def forward(call: Differentiated, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _outputs_of(call, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _remember(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return _backward(ctx, *grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> NoReturn:
        mapped = next(i for i, dim in enumerate(in_dims[1:]) if dim is not None)
        raise FunctionTransformError(what=_named(mapped, args[1:]))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise FunctionTransformError(what="an input")


def _outputs_of(call: Differentiated, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    q, k, v, *tensors = inputs
    return tuple(x for x in call.forward(q, k, v, tensors) if x is not None)


def _remember(
    ctx: Any,
    call: Differentiated,
    inputs: Sequence[torch.Tensor],
    found: Sequence[torch.Tensor],
) -> None:
    ctx.call = call
    ctx.set_materialize_grads(False)
    q, k, v, *tensors = inputs
    # Everything that backward reads, so that autograd notices what is written in between.
    ctx.save_for_backward(q, k, v, *found[:2], *tensors)
    ctx.mark_non_differentiable(*found[2:])


def _backward(
    ctx: Any,
    grad_out: torch.Tensor | None,
    grad_lse: torch.Tensor | None,
    *of_maxima: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    is_batched = torch._C._functorch.is_legacy_batchedtensor
    if any(x is not None and is_batched(x) for x in (grad_out, grad_lse)):
        raise FunctionTransformError(what="a gradient of attention")
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    needs = tuple(ctx.needs_input_grad[1:])
    if not (torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()):
        found = ctx.call.gradients(q, k, v, out, lse, tensors, grad_out, grad_lse, needs)
        return (None, *found)
    present = iter(
        _applied(
            _AttentionBackward, ctx.call, needs, grad_out, grad_lse, q, k, v, out, lse, *tensors
        )
    )
    return (None, *(next(present) if needed else None for needed in needs))


class _AttentionBackward(torch.autograd.Function):
    """Gradients of attention as a function of everything they depend on.

    Arguments: a ``Differentiated``, which gradients are needed, those of the outputs, the inputs
    and outputs, captured tensors. Results: the gradients that are needed. out and lse stand for
    functions of the inputs, so nothing flows back to them.
    """

    @staticmethod
    def forward(
        call: Differentiated,
        needs: tuple[bool, ...],
        grad_out: torch.Tensor | None,
        grad_lse: torch.Tensor | None,
        *saved: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        q, k, v, out, lse, *tensors = saved
        found = call.gradients(q, k, v, out, lse, tensors, grad_out, grad_lse, needs)
        return tuple(gradient for gradient in found if gradient is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        call, needs, grad_out, grad_lse, q, k, v, _, _, *tensors = inputs
        ctx.call, ctx.needs = call, needs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad_out, grad_lse, q, k, v, *tensors)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        is_needed = (*ctx.needs_input_grad[2:7], *ctx.needs_input_grad[9:])
        found = _second_gradients(ctx.call, ctx.needs, saved, is_needed, grads)
        return (None, None, *found[:5], None, None, *found[5:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> NoReturn:
        raise FunctionTransformError(what="a gradient of attention")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise FunctionTransformError(what="a gradient of attention")


def _second_gradients(
    call: Differentiated,
    needs: Sequence[bool],
    saved: Sequence[Any],
    is_needed: Sequence[bool],
    grads: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Gradients of ``saved`` (grad_out, grad_lse, q, k, v, captured), by composed operations."""
    q, k = saved[2], saved[3]
    found: list[torch.Tensor | None] = [None] * len(saved)
    if 0 in (*q.shape[:3], k.shape[2]):
        return found
    require_memory_of_pass(saved[2:], saved[0], saved[1])
    has_graph = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
        # As views, so that a k computed from q does not pass its gradient on to that q here.
        inputs = [x.view_as(x) if needed else x for x, needed in zip(saved, is_needed, strict=True)]
        grad_out, grad_lse, q, k, v, *tensors = inputs
        attention = call.attention(q, k, tensors)
        first = composed_gradients(attention, q, k, v, tensors, grad_out, grad_lse, needs)
        present = [gradient for gradient in first if gradient is not None]
        pairs = [
            (gradient, grad)
            for gradient, grad in zip(present, grads, strict=True)
            if grad is not None and gradient.requires_grad
        ]
        places = [number for number, needed in enumerate(is_needed) if needed]
        if not pairs or not places:
            return found
        second = torch.autograd.grad(
            [gradient for gradient, _ in pairs],
            [inputs[number] for number in places],
            [grad for _, grad in pairs],
            create_graph=has_graph,
            allow_unused=True,
        )
    for number, gradient in zip(places, second, strict=True):
        found[number] = gradient
    return found
