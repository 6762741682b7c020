"""Plain lambdas: they work wherever a mod does, combine with & | ~, and need no decorator.

    attnc inspect examples/lambdas.py:prefix_or_causal --stage ir

shows what attnc made of the combination. Constants are run-time arguments of the kernel, so the
loop over windows below compiles once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import attnc

causal = attnc.kernel(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)
prefix_or_causal = causal | (lambda b, h, q_idx, kv_idx: kv_idx < 100)


def main() -> None:
    torch.manual_seed(0)
    n = 512
    q, k, v = (torch.randn(1, 2, n, 32) for _ in range(3))
    i = torch.arange(n)

    out = prefix_or_causal(q, k, v)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=(i[:, None] >= i) | (i < 100))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    print("prefix_or_causal agrees with the dense mask")

    for window in (16, 64, 200):
        out = attnc.attention(q, k, v, mask=lambda b, h, i, j, w=window: (i - j).abs() <= w)
        expected = F.scaled_dot_product_attention(
            q, k, v, attn_mask=(i[:, None] - i).abs() <= window
        )
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        print(f"window of {window:3} to both sides agrees, with the same kernel")


if __name__ == "__main__":
    main()
