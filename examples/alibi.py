"""ALiBi: a score_mod with one slope per head, causal, with fewer key heads than query heads.

    attnc inspect examples/alibi.py:alibi --stage cpp

shows the C++ kernel. The slopes are a captured tensor: the kernel reads them once per tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import attnc

HEADS = 8
slopes = 2.0 ** -(8.0 * torch.arange(1, HEADS + 1) / HEADS)


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


@attnc.kernel(mask=causal, enable_gqa=True)
def alibi(score, b, h, q_idx, kv_idx):
    return score + slopes[h] * (kv_idx - q_idx)


def main() -> None:
    torch.manual_seed(0)
    n, kv_heads = 1000, 2
    q = torch.randn(2, HEADS, n, 64)
    k, v = (torch.randn(2, kv_heads, n, 64) for _ in range(2))

    out = alibi(q, k, v)

    i = torch.arange(n)
    bias = slopes[:, None, None] * (i - i[:, None])
    bias = bias.masked_fill(i[:, None] < i, float("-inf"))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    print(
        f"{HEADS} query heads on {kv_heads} key heads, slopes {slopes[0]:.3g} to {slopes[-1]:.3g}"
    )
    print(f"Largest difference from dense attention: {(out - expected).abs().max():.1e}")


if __name__ == "__main__":
    main()
