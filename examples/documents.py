"""Packed documents: tokens see only earlier tokens of their own document, whatever the lengths.

    attnc inspect examples/documents.py:documents --stage blocks --shape 1,4,1400,1400,64

shows which tiles the kernel skips. Lengths are data: the same kernel serves every packing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import attnc

lengths = [300, 20, 512, 64, 7, 255, 242]
doc = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


@attnc.kernel
def documents(b, h, q_idx, kv_idx):
    return (doc[q_idx] == doc[kv_idx]) & (q_idx >= kv_idx)


def main() -> None:
    torch.manual_seed(0)
    n = sum(lengths)
    q, k, v = (torch.randn(1, 4, n, 64) for _ in range(3))

    packed = documents(q, k, v)

    # The same, one document after the other.
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    separate = [F.scaled_dot_product_attention(*part, is_causal=True) for part in parts]
    expected = torch.cat(separate, dim=2)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)

    block_mask = attnc.create_block_mask(documents, None, None, n, n, BLOCK_SIZE=64)
    print(
        f"{len(lengths)} documents in {n} tokens; {block_mask.sparsity():.0f}% of the pairs are skipped:"
    )
    print(block_mask.to_string())
    print(f"Largest difference from separate calls: {(packed - expected).abs().max():.1e}")


if __name__ == "__main__":
    main()
