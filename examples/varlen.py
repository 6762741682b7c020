"""FlashAttention's function of packed sequences, on attnc: the same arguments, on any machine.

    attnc inspect examples/varlen.py:packed --stage blocks --shape 1,4,1400,1400,64

shows the tiles of the packed batch below. Lengths are data: one kernel serves every batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from attnc import interchange

lengths = [300, 20, 512, 64, 7, 255, 242]
cu_seqlens = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
packed = interchange.from_cu_seqlens(cu_seqlens, causal=True)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_q, max_k, *, softmax_scale=None, causal=False
):
    """q (total_q, heads, head_dim), k and v (total_k, kv_heads, head_dim): views, no copies."""
    mask = interchange.from_cu_seqlens(cu_seqlens_q, cu_seqlens_k, causal=causal)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return mask(q, k, v, scale=softmax_scale, enable_gqa=True)[0].transpose(0, 1)


def main() -> None:
    torch.manual_seed(0)
    n = sum(lengths)
    q = torch.randn(n, 4, 64, requires_grad=True)
    k, v = (torch.randn(n, 2, 64, requires_grad=True) for _ in range(2))

    out = flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, 512, 512, causal=True)
    found = torch.autograd.grad(out.square().sum(), (q, k, v))

    # The same, one sequence after the other.
    parts = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)), strict=True)
    separate = [
        F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts
    ]
    expected = torch.cat(separate, dim=1).transpose(0, 1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(expected.square().sum(), (q, k, v))
    torch.testing.assert_close(found, gradients, rtol=1e-3, atol=1e-4)

    documents = interchange.to_cu_seqlens(packed, n)
    assert torch.equal(documents.cu_seqlens_q, cu_seqlens)
    print(f"{len(lengths)} sequences, the longest of {documents.max_seqlen_q} tokens, in one call.")
    print(f"Largest difference from separate calls: {(out - expected).abs().max():.1e}")


if __name__ == "__main__":
    main()
