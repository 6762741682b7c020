"""``attention``: the whole library as one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd import forward_ad

from attnc.block_mask import BlockMask
from attnc.block_mask.fixed import as_fixed, as_function
from attnc.errors import InputTypeError
from attnc.inputs import (
    check_inputs,
    checked_flag,
    checked_scale,
    class_of,
    lowered,
    require_strided,
)
from attnc.mods import Mod, is_plain_function, require_alone, require_kind
from attnc.runtime.dispatch import (
    Fixed,
    Inputs,
    Outputs,
    choose_backend,
    run_program,
    traced_program,
)
from attnc.runtime.forks import forks_wait
from attnc.runtime.layout import layout_of
from attnc.storage import require_memory

if TYPE_CHECKING:
    from attnc.layout import Layout


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: Mod | BlockMask | None = None,
    score: Mod | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    layout: Layout | None = None,
    backend: str | None = None,
    strict: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """softmax(score(scale * q @ k^T) where mask) @ v, by a kernel made for this mask and score.

    Args:
        q: (B, Hq, n_queries, head_dim), float32, bfloat16, float16 or float64, any strides.
        k: (B or 1, Hkv, n_keys, head_dim), dtype and device of q.
        v: (B or 1, Hkv, n_keys, value_dim), dtype and device of q.
        mask: mask_mod ``(b, h, q_idx, kv_idx) -> bool``, or a BlockMask (ours or PyTorch's). A
            function is read anew at each call; a BlockMask is a snapshot.
        score: score_mod ``(score, b, h, q_idx, kv_idx) -> score``.
        scale: Factor of q . k; 1 / sqrt(head_dim) if None.
        enable_gqa: Hkv may divide Hq; query head h reads key head h // (Hq // Hkv).
        return_lse: Also return the log-sum-exp of each row's scores.
        layout: Order of tokens to compute in, as ``attnc.layout.search`` finds it: q, k, v and the
            outputs are permuted, mask and score see the tokens' own numbers. The result is the
            same, but for rounding.
        backend: "cpu", "triton" or "reference"; by ATTNC_BACKEND or the device of q if None.
        strict: Raise, instead of warning once, where only a slow path can run.

    Returns:
        out (B, Hq, n_queries, value_dim) in q's dtype; with ``return_lse`` also lse
        (B, Hq, n_queries), natural logarithm, float32 (float64 for float64 inputs). A row that
        sees no key has out 0 and lse -inf.

    Raises:
        AttncError: One subclass per mistake, with what to write instead.
    """
    if return_lse is not True and return_lse is not False:
        return_lse = checked_flag("return_lse", return_lse)
    moves = False
    if layout is not None and _are_attended(q, k, v):
        from attnc.layout.attend import arranged, require_layout, restored

        require_layout(layout, q, k, mask)
        moves = not layout.is_own
        if moves:
            (q, k, v), mask, score = arranged(layout, q, k, v, cast("Mod | None", mask), score)
    outputs = attend(
        q,
        k,
        v,
        mask=mask,
        score=score,
        scale=scale,
        enable_gqa=enable_gqa,
        wants_lse=return_lse,
        backend=backend,
        strict=strict,
    )
    if moves and layout is not None:
        outputs = restored(layout, outputs)
    if not return_lse:
        return outputs.out
    assert outputs.lse is not None
    return outputs.out, outputs.lse


def _are_attended(*tensors: Any) -> bool:
    """Whether these are tensors of attention; ``attend`` says what is wrong with others."""
    return all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in tensors)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: Any,
    score: Mod | None,
    scale: float | None,
    enable_gqa: bool,
    wants_lse: bool = False,
    wants_max: bool = False,
    backend: str | None = None,
    strict: bool = False,
) -> Outputs:
    """As ``attention``, with every output that a kernel can give."""
    if _makes_graph(q):
        return _attend_in_graph(
            q, k, v, mask, score, scale, enable_gqa, wants_lse, wants_max, backend, strict
        )
    try:
        return _attend(
            q, k, v, mask, score, scale, enable_gqa, wants_lse, wants_max, backend, strict
        )
    except RuntimeError:
        # Sparse and nested tensors fail where their memory is asked for; to look at each at each
        # call would cost all others.
        require_strided(q, k, v)
        raise


def _run_whole(function: Callable[..., Any]) -> None:
    """Makes dynamo trace ``function`` inside its callers only, never by itself.

    Where dynamo cannot trace a mod, the call runs as it stands, between two graphs.
    """
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)
    frames.set_code_exec_strategy(function.__code__, skip)


_run_whole(attend)


def _makes_graph(q: torch.Tensor) -> bool:
    """Whether calls are recorded: by torch.compile, export, or a mode or tensor that does so."""
    if torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    cls = type(q)
    if cls is torch.Tensor or cls is torch.nn.Parameter:
        return False
    disabled = torch._C._disabled_torch_dispatch_impl
    return getattr(cls, "__torch_dispatch__", disabled) is not disabled


def _attend_in_graph(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    score: Mod | None,
    scale: float | None,
    enable_gqa: bool,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> Outputs:
    from attnc.in_graph.attend import attend_in_graph

    if not all(isinstance(tensor, torch.Tensor) for tensor in (q, k, v)):
        raise InputTypeError(q=class_of(q), k=class_of(k), v=class_of(v))
    if scale is not None and not isinstance(scale, (int, float)):
        scale = checked_scale(scale)
    if strict is not False and strict is not True:
        strict = checked_flag("strict", strict)
    if not q.is_meta and torch.is_autocast_enabled(q.device.type):
        q, k, v = lowered(q, k, v)
    check_inputs(q, k, v, enable_gqa)
    return attend_in_graph(q, k, v, mask, score, scale, wants_lse, wants_max, backend, strict)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    score: Mod | None,
    scale: float | None,
    enable_gqa: bool,
    wants_lse: bool,
    wants_max: bool,
    backend: str | None,
    strict: bool,
) -> Outputs:
    is_tensor = isinstance(q, torch.Tensor) and isinstance(k, torch.Tensor)
    if not (is_tensor and isinstance(v, torch.Tensor)):
        raise InputTypeError(q=class_of(q), k=class_of(k), v=class_of(v))
    if torch.is_autocast_enabled("cpu") if q.is_cpu else _is_autocast_elsewhere(q):
        q, k, v = lowered(q, k, v)
    layout = layout_of(q, k, v, enable_gqa, check_inputs)
    if q.is_neg() or k.is_neg() or v.is_neg():
        require_memory(q=q, k=k, v=v)
        q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
    if scale is None:
        scale = layout.scale
    elif type(scale) is not float or scale - scale != 0.0:
        scale = checked_scale(scale)
    if strict is not False and strict is not True:
        strict = checked_flag("strict", strict)
    inputs = Inputs(
        q,
        k,
        v,
        None if mask is None else _resolved_mask(mask, q, k),
        score,
        scale,
        layout,
    )
    if score is not None and not is_plain_function(score, 5):
        require_kind(score, "score_mod", "score")
        require_alone(score, "score")
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return _reference(inputs, enable_gqa)
    program = traced_program(inputs)
    if _is_followed(q, k, v, program.tensors):
        with forks_wait():
            from attnc.autograd import attend_with_gradients

        return attend_with_gradients(
            q, k, v, program, inputs.scale, chosen, wants_lse, wants_max, strict
        )
    return run_program(
        q,
        k,
        v,
        program,
        inputs.scale,
        chosen,
        wants_lse=wants_lse,
        wants_max=wants_max,
        strict=strict,
        layout=layout,
    )


def _is_autocast_elsewhere(q: torch.Tensor) -> bool:
    return not q.is_meta and torch.is_autocast_enabled(q.device.type)


def _resolved_mask(mask: Any, q: torch.Tensor, k: torch.Tensor) -> Mod | Fixed:
    if is_plain_function(mask, 4):
        return mask  # type: ignore[no-any-return]
    fixed = as_fixed(mask, q, k)
    if fixed is not None:
        return fixed
    require_kind(mask, "mask_mod", "mask")
    require_alone(mask, "mask")
    return mask  # type: ignore[no-any-return]


def _is_followed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, captured: Sequence[torch.Tensor]
) -> bool:
    """Whether autograd differentiates the call, or torch.func transforms what is around it."""
    if torch.is_grad_enabled():
        if q.requires_grad or k.requires_grad or v.requires_grad:
            return True
        for tensor in captured:
            if tensor.requires_grad:
                return True
    if forward_ad._current_level >= 0:
        return True
    return torch._C._functorch.maybe_current_level() is not None


def _reference(inputs: Inputs, enable_gqa: bool) -> Outputs:
    from attnc.runtime.reference import reference_attention

    require_memory(q=inputs.q, k=inputs.k, v=inputs.v)
    mask = inputs.mask
    result = reference_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        mask=as_function(mask, inputs.q.device) if isinstance(mask, Fixed) else mask,
        score=inputs.score,
        scale=inputs.scale,
        enable_gqa=enable_gqa,
    )
    stat_dtype = torch.float64 if inputs.q.dtype is torch.float64 else torch.float32
    out = result.out.to(inputs.q.dtype)
    if out.requires_grad:
        _heed_loss_of_memory(inputs, out)
    return Outputs(out, result.lse.to(stat_dtype), result.max_scores.to(stat_dtype))


def _heed_loss_of_memory(inputs: Inputs, out: torch.Tensor) -> None:
    """Makes the backward pass of torch's own operations raise FreedStorageError, as kernels do."""
    # Others than float64 are copied before torch remembers them.
    kept = (inputs.q, inputs.k, inputs.v) if inputs.q.dtype is torch.float64 else ()

    def require(gradient: torch.Tensor) -> None:
        require_memory(grad_out=gradient, **dict(zip("qkv", kept, strict=False)))

    out.register_hook(require)  # type: ignore[no-untyped-call]
