"""The oracle computes with integers and indices as kernels do: ``docs/semantics.md``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask as torch_create_mask

import attnc
from attnc.errors import UnsupportedOperationError
from attnc.runtime.reference import reference_mask

_SMALL = torch.arange(20, dtype=torch.int8) * 6
_BYTES = torch.arange(20, dtype=torch.uint8)
_TABLE = torch.arange(400).view(20, 20)
_HALF = torch.arange(20.0).half()
_NO_ROWS, _NO_COLUMNS = torch.ones(0, 4), torch.ones(20, 0)

#: Masks of ints beyond 32 bits, which PyTorch's int64 indices hold.
WIDE: tuple[Callable[..., Any], ...] = (
    lambda b, h, q, k: q + 2**31 >= k,
    lambda b, h, q, k: q * 2**62 >= k,
    lambda b, h, q, k: q < 2**31,
    lambda b, h, q, k: q - k <= sys.maxsize,
    lambda b, h, q, k: q == 2**32 + 5,
    lambda b, h, q, k: 2**31 - q >= k,
    lambda b, h, q, k: q // 2**31 >= 0,
    lambda b, h, q, k: -q % 2**31 >= k,
    lambda b, h, q, k: (q & (2**33 + 4)) >= k,
    lambda b, h, q, k: torch.where(q > 3, 2**31, q) >= k,
    lambda b, h, q, k: (q - 2**31) // -1 >= k,
)

#: Masks that PyTorch wraps, refuses or leaves open.
OPEN: tuple[Callable[..., Any], ...] = (
    lambda b, h, q, k: torch.clamp(q, min=-(2**40), max=2**40) >= k,
    lambda b, h, q, k: q // 0 >= k,
    lambda b, h, q, k: q % 0 >= k,
    lambda b, h, q, k: q % k == 0,
    lambda b, h, q, k: 5 // q >= k,
    lambda b, h, q, k: 2**40 // q >= k,
    lambda b, h, q, k: torch.div(q, k, rounding_mode="trunc") >= 3,
    lambda b, h, q, k: torch.fmod(q, k) >= 3,
    lambda b, h, q, k: _SMALL[q] + 100 >= k,
    lambda b, h, q, k: _BYTES[q] - _BYTES[k] >= 0,
    lambda b, h, q, k: _BYTES[q] > -1,
    lambda b, h, q, k: _HALF[q] * 60000 > _HALF[k] * 50000,
    lambda b, h, q, k: torch.exp(q * 3.0).to(torch.int32) >= k,
    lambda b, h, q, k: -torch.exp(q * 3.0).long() <= k - 9,
    lambda b, h, q, k: (q * float("nan")).int() >= k,
    lambda b, h, q, k: _SMALL[q + 7] >= k,
    lambda b, h, q, k: _TABLE[q, k - 25] >= 20 * k,
    lambda b, h, q, k: _TABLE[..., q + 7][k] >= 20 * k,
    lambda b, h, q, k: _NO_ROWS[q, k] >= k,
    lambda b, h, q, k: _NO_COLUMNS[q, k] > 0,
    lambda b, h, q, k: _NO_ROWS[q].sum() > 0,
)


@pytest.mark.parametrize("mask", WIDE)
def test_ints_beyond_32_bits_widen_what_they_meet(mask: Callable[..., Any]) -> None:
    """The oracle, the meaning of the IR and PyTorch's eager mode agree."""
    expected = torch_create_mask(mask, 1, 1, 20, 20, device="cpu")

    assert torch.equal(reference_mask(mask, 1, 1, 20, 20), expected)
    assert torch.equal(attnc.create_mask(mask, 1, 1, 20, 20, device="cpu"), expected)


@pytest.mark.parametrize("mask", OPEN)
def test_what_torch_leaves_open_means_the_same_in_the_oracle(mask: Callable[..., Any]) -> None:
    """Division by 0, narrow dtypes, conversions and indices beyond a tensor."""
    expected = attnc.create_mask(mask, 1, 1, 20, 20, device="cpu")

    assert torch.equal(reference_mask(mask, 1, 1, 20, 20), expected)


@pytest.mark.parametrize(
    "mask", [lambda b, h, q, k: q >= 2**63, lambda b, h, q, k: q**-1 >= k], ids=["wide", "power"]
)
def test_the_oracle_refuses_what_kernels_refuse(mask: Callable[..., Any]) -> None:
    """By the same error, at the line of the mask."""
    q = torch.ones(1, 1, 20, 16)
    messages = []
    for backend in ("cpu", "reference"):
        with pytest.raises(UnsupportedOperationError, match=r"test_oracle_numbers\.py:") as told:
            attnc.attention(q, q, q, mask=mask, backend=backend)
        messages.append(str(told.value))

    assert messages[0] == messages[1]
