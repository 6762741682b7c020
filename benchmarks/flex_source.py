"""The Triton kernel that PyTorch makes of a flex_attention call, on a machine without a GPU.

Inductor lowers a graph of fake CUDA tensors under a pretended GPU of compute capability 9.0, with
its default configuration for it and no autotuning, which would need the GPU. What it renders is
what it would run; only the wrapper around it is left out.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch._dynamo.device_interface import CudaInterface
from torch._higher_order_ops.flex_attention import flex_attention as flex_operator
from torch._inductor import config
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.gpu_cases import Case

TARGET = GPUTarget("cuda", 90, 32)
_ONE_BLOCK = 1 << 30  # the block size of a call without a block mask
_OPTIONS = {
    # What flex_attention sets for a call that asks for the output alone.
    "BACKEND": "AUTO",
    "PRESCALE_QK": False,
    "ROWS_GUARANTEED_SAFE": False,
    "BLOCKS_ARE_CONTIGUOUS": False,
    "WRITE_DQ": True,
    "OUTPUT_LOGSUMEXP": False,
    "OUTPUT_MAX": False,
}
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block_optin=227 << 10,
    total_memory=80 << 30,
)


@dataclass(frozen=True)
class FlexKernel:
    """PyTorch's kernel for one call, compiled."""

    source: str
    block_m: int
    block_n: int
    n_warps: int
    has_full_blocks: bool
    shared_bytes: int
    cubin: bytes


def compiled_flex_kernel(case: Case, *, n_heads: int, length: int, head_dim: int) -> FlexKernel:
    """The forward kernel of ``case`` for bf16 tensors (1, n_heads, length, head_dim)."""
    wrapper = _inductor_output(case, n_heads, length, head_dim)
    match = re.search(
        r"async_compile\.triton\('(\w+)', '''(.*?)''', device_str", wrapper, re.DOTALL
    )
    assert match is not None, "Inductor made no Triton kernel"
    name, text = match[1], match[2]
    head, source = re.split(
        r"(?=^@triton_heuristics\.template)", text, maxsplit=1, flags=re.MULTILINE
    )
    decorator, body = source.split("@triton.jit", 1)
    n_warps, n_stages = (int(_keyword(decorator, k)) for k in ("num_warps", "num_stages"))
    meta = _triton_meta(decorator)
    plain = f"{head}\n@triton.jit{body}"
    with tempfile.TemporaryDirectory() as scratch, triton.knobs.cache.scope():
        triton.knobs.cache.dir = scratch
        path = Path(scratch) / "flex_kernel.py"
        path.write_text(plain)
        function = getattr(_module(path), name)
        kernel = triton.compile(
            ASTSource(
                fn=function,
                signature=meta["signature"],
                constexprs=meta["constants"],
                attrs=meta["configs"][0],
            ),
            target=TARGET,
            options={
                "num_warps": n_warps,
                "num_stages": n_stages,
                "enable_fp_fusion": meta.get("enable_fp_fusion", True),
                "sanitize_overflow": False,
            },
        )
    return FlexKernel(
        source=plain,
        block_m=int(_constant(plain, "BLOCK_M")),
        block_n=int(_constant(plain, "BLOCK_N")),
        n_warps=n_warps,
        has_full_blocks=_constant(plain, "HAS_FULL_BLOCKS") == "True",
        shared_bytes=kernel.metadata.shared,
        cubin=kernel.asm["cubin"],
    )


def _inductor_output(case: Case, n_heads: int, length: int, head_dim: int) -> str:
    """Python source of the module that Inductor makes of the call."""
    shape = (1, n_heads, length, head_dim)
    captured = case.tensors(length, "cpu")
    parts: list[Any]
    *parts, mask = _block_mask(case, captured, shape).as_tuple()
    places = [n for n, part in enumerate(parts) if isinstance(part, torch.Tensor)]
    score = case.score or _plain_score

    def attend(q: Any, k: Any, v: Any, *rest: Any) -> Any:
        lists, buffers = rest[: len(places)], rest[len(places) :]
        given = dict(zip(places, lists, strict=True))
        block_mask = (*(given.get(n, part) for n, part in enumerate(parts)), case.mask or mask)
        scale = head_dim**-0.5
        return flex_operator(q, k, v, score, block_mask, scale, _OPTIONS, (), buffers)[0]

    with _pretended_gpu(), FakeTensorMode(shape_env=ShapeEnv()) as mode:
        arguments = [
            *(torch.empty(shape, dtype=torch.bfloat16, device="cuda") for _ in range(3)),
            *(
                torch.empty(x.shape, dtype=x.dtype, device="cuda")
                for x in (*(parts[n] for n in places), *captured)
            ),
        ]
        traced = make_fx(attend, select_decomp_table(), tracing_mode="fake")(*arguments)
        graph = GraphLowering(traced, example_inputs=arguments, shape_env=mode.shape_env)
        with (
            config.patch(max_autotune=False),
            V.set_debug_handler(DebugContext()),
            V.set_graph_handler(graph),
            V.set_fake_mode(mode),
        ):
            graph.run(*arguments)
            code = graph.codegen()[0]
    return str(getattr(code, "value", code))


def _block_mask(
    case: Case, captured: tuple[torch.Tensor, ...], shape: tuple[int, int, int, int]
) -> BlockMask:
    length = shape[2]
    mask = case.bound_mask(captured)
    if mask is not None:
        return create_block_mask(mask, None, None, length, length, "cpu")
    # As flex_attention does it for a call without a block mask: one block, all of it PARTIAL.
    one = torch.ones(1, 1, 1, dtype=torch.int32)
    return BlockMask.from_kv_blocks(
        one, one[..., None] - 1, BLOCK_SIZE=_ONE_BLOCK, seq_lengths=(length, length)
    )


def _plain_score(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score


class _Driver:
    """What Triton asks of its driver before a kernel is launched."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)


@contextlib.contextmanager
def _pretended_gpu() -> Iterator[None]:
    """PyTorch finds one GPU of capability 9.0, whose tensors can only be fake."""
    values: dict[str, Any] = {
        "torch.cuda.is_available": True,
        "torch.cuda.device_count": 1,
        "torch.cuda.current_device": 0,
        "torch.cuda.get_device_capability": (9, 0),
        "torch.cuda.get_device_properties": _PROPERTIES,
    }
    methods: list[tuple[Any, str, Any]] = [
        (CudaInterface, "is_available", True),
        (CudaInterface, "get_compute_capability", 90),
        (CudaInterface, "get_device_properties", _PROPERTIES),
        (CudaInterface.Worker, "get_device_properties", _PROPERTIES),
    ]
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(patch(name, _always(value)))
        for owner, name, value in methods:
            stack.enter_context(patch.object(owner, name, staticmethod(_always(value))))
        stack.enter_context(patch("torch.version.cuda", "12.8"))
        # The copy that keeps a query's memory order needs a GPU; here it is kept already.
        name = "torch._higher_order_ops.flex_attention._permute_strides"
        stack.enter_context(patch(name, lambda out, strides: out))
        stack.enter_context(patch.object(triton.runtime.driver, "_active", _Driver()))
        yield


def _always(value: Any) -> Any:
    return lambda *args, **kwargs: value


def _module(path: Path) -> ModuleType:
    """The module at ``path``. Triton reads a kernel's source from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _keyword(decorator: str, name: str) -> str:
    match = re.search(rf"^{name}=(\d+),$", decorator, re.MULTILINE)
    assert match is not None, f"no {name} in {decorator}"
    return match[1]


def _triton_meta(decorator: str) -> dict[str, Any]:
    """The keyword ``triton_meta`` of the decorator, as far as it says how to compile."""
    function: Any = ast.parse(f"{decorator.strip()}\ndef kernel(): pass").body[0]
    call = function.decorator_list[0]
    (meta,) = (keyword.value for keyword in call.keywords if keyword.arg == "triton_meta")
    entries = {key.value: value for key, value in zip(meta.keys, meta.values, strict=True)}
    names = ("signature", "constants", "configs", "enable_fp_fusion")
    return {name: ast.literal_eval(entries[name]) for name in names if name in entries}


def _constant(source: str, name: str) -> str:
    match = re.search(rf"^    {name} ?: tl\.constexpr = (.*)$", source, re.MULTILINE)
    assert match is not None, f"no {name} in the kernel"
    return match[1]
