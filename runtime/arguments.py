"""The C structure ``Args`` of ``prelude.cpp.jinja``, written in one go."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch

from attnc.ir import DType
from attnc.run_table import RunTable
from attnc.runtime.call import BackwardCall, Call
from attnc.runtime.layout import layout_of
from attnc.storage import require_memory

_WORD = 8  # bytes
# Words of Args: four tensors of a pointer and four strides; lse, max_scores; six sizes; scale;
# three pointers to what follows here; four into the table; two sizes of it; threads.
_ARGS = "20q2q6qd3q4q2q2q"
_N_ARGS = 40
_WORDS_PER_SLOT = 3
# What BackwardArgs adds: a tensor, a pointer, three tensors, three pointers.
_BACKWARD = struct.Struct("=5qq15q3q")
_NO_TENSOR = (0, 0, 0, 0, 0)

# What a kernel reads of a captured tensor without elements: 0, whatever the index.
_NOTHING = torch.zeros(1, dtype=torch.int64)
_NO_TABLE = (0, 0, 0, 0, 0, 0)


class Block(NamedTuple):
    """Memory of one call's arguments, and its address."""

    memory: ctypes.Array[ctypes.c_char]
    address: int


class ArgumentWriter:
    """Writes ``Args`` and what it points to, for one kernel.

    A block holds ``Args``, the kernel's slots, their sizes and strides, and the lifted constants.
    Blocks are used again, but never by two calls at once.

    Args:
        params: Dtypes of the lifted constants.
        slots: The captured tensors that the kernel reads, in its order.
        ranks: Their numbers of dimensions.
    """

    def __init__(self, params: Sequence[DType], slots: Sequence[int], ranks: Sequence[int]) -> None:
        n_shape = 2 * sum(ranks)
        self._slots = tuple(slots)
        self._are_float = tuple(dtype.is_float for dtype in params)
        n = len(params)
        self._format = struct.Struct(f"={_ARGS}{_WORDS_PER_SLOT * len(ranks)}q{n_shape}q{n}q{n}d")
        self._slots_at = _N_ARGS * _WORD
        self._shapes_at = self._slots_at + _WORDS_PER_SLOT * len(ranks) * _WORD
        self._ints_at = self._shapes_at + n_shape * _WORD
        self._floats_at = self._ints_at + n * _WORD
        self._free: list[Block] = []

    def write(
        self, call: Call, table: tuple[int, ...] | None, n_threads: int, parallel_for: int
    ) -> Block:
        """A block with the arguments of ``call``; to be given back to ``release``.

        Args:
            call: What the kernel is run on; its tensors must outlive the use of the block.
            table: ``table_words`` of the tiles to visit, or None where there is no table.
            n_threads: See ``Args``.
            parallel_for: Address of the function that runs threads; 0 for one thread.
        """
        block = self._block()
        address = block.address
        q, k, v, out = call.q, call.k, call.v, call.out
        q_data, k_data, v_data = q.data_ptr(), k.data_ptr(), v.data_ptr()
        strides = (q.stride(), k.stride(), v.stride())
        layout = call.layout or layout_of(q, k, v)
        q_reach, k_reach, v_reach = layout.reaches(strides)
        # As ``require_memory`` would, at a third of its time.
        q_memory, k_memory, v_memory = q.untyped_storage(), k.untyped_storage(), v.untyped_storage()
        if (
            q_data + q_reach > q_memory.data_ptr() + q_memory.nbytes()
            or k_data + k_reach > k_memory.data_ptr() + k_memory.nbytes()
            or v_data + v_reach > v_memory.data_ptr() + v_memory.nbytes()
        ):
            require_memory(q=q, k=k, v=v)
        self._format.pack_into(
            block.memory,
            0,
            q_data,
            *strides[0],
            k_data,
            *strides[1],
            v_data,
            *strides[2],
            out.data_ptr(),
            *out.stride(),
            0 if call.lse is None else call.lse.data_ptr(),
            0 if call.max_scores is None else call.max_scores.data_ptr(),
            *layout.sizes,
            call.scale,
            address + self._ints_at,
            address + self._floats_at,
            address + self._slots_at,
            *(table or _NO_TABLE),
            n_threads,
            parallel_for,
            *(self._slot_words(call.tensors, address) if self._slots else ()),
            *(self._param_words(call.params) if self._are_float else ()),
        )
        return block

    def release(self, block: Block) -> None:
        """Takes back a block that no kernel reads any more."""
        self._free.append(block)

    def _block(self) -> Block:
        try:
            return self._free.pop()
        except IndexError:  # each is in use, by other threads
            memory = ctypes.create_string_buffer(self._format.size)
            return Block(memory, ctypes.addressof(memory))

    def _slot_words(self, tensors: Sequence[torch.Tensor], address: int) -> list[int]:
        slots: list[int] = []
        shapes: list[int] = []
        shape_at = address + self._shapes_at
        for slot in self._slots:
            tensor = tensors[slot]
            rank = tensor.dim()
            if tensor.numel():
                data = tensor.data_ptr()
                shapes += tensor.shape
                shapes += tensor.stride()
            else:
                data = _NOTHING.data_ptr()
                shapes += [1] * rank + [0] * rank
            slots += (data, shape_at, shape_at + rank * _WORD)
            shape_at += 2 * rank * _WORD
        return slots + shapes

    def _param_words(self, params: Sequence[int | float]) -> list[int | float]:
        """Every constant as an integer, then every one as a float; the other form is 0."""
        pairs = list(zip(self._are_float, params, strict=True))
        ints: list[int | float] = [0 if is_float else int(value) for is_float, value in pairs]
        return ints + [value if is_float else 0.0 for is_float, value in pairs]


class BackwardBlock(NamedTuple):
    """``BackwardArgs``, and arrays that it points to."""

    words: bytes
    kept: tuple[object, ...]


def backward_block(call: BackwardCall, block: Block) -> BackwardBlock:
    """``BackwardArgs`` of ``backward.cpp.jinja``; ``block`` holds the forward call's arguments."""
    captured = call.grad_captured
    pointers = (ctypes.c_int64 * (len(captured) + 1))(*(grad.data_ptr() for grad in captured))
    sizes = (ctypes.c_int64 * (len(captured) + 1))(*(grad.numel() for grad in captured))
    stored = call.stored or [False] * len(captured)
    ways = (ctypes.c_int64 * (len(captured) + 1))(
        *(_way(grad, is_stored) for grad, is_stored in zip(captured, stored, strict=True))
    )
    more = _BACKWARD.pack(
        *_tensor_words(call.grad_out),
        0 if call.grad_lse is None else call.grad_lse.data_ptr(),
        *_tensor_words(call.grad_q),
        *_tensor_words(call.grad_k),
        *_tensor_words(call.grad_v),
        ctypes.addressof(pointers),
        ctypes.addressof(sizes),
        ctypes.addressof(ways),
    )
    forward = ctypes.string_at(block.address, _N_ARGS * _WORD)
    return BackwardBlock(forward + more, (pointers, sizes, ways))


def _way(gradient: torch.Tensor, is_stored: bool) -> int:
    """The ``Way`` of ``backward.cpp.jinja``."""
    return 0 if not is_stored else 2 if gradient.itemsize == 2 else 1


def _tensor_words(tensor: torch.Tensor | None) -> tuple[int, ...]:
    return _NO_TENSOR if tensor is None else (tensor.data_ptr(), *tensor.stride())


def table_words(table: RunTable) -> tuple[int, ...]:
    """The words of ``Args`` about a table: addresses of its arrays, and two sizes."""
    arrays = (table.offsets, table.starts, table.stops, table.kinds)
    return (*(array.ctypes.data for array in arrays), table.n_batch, table.n_heads)
