"""Sliding window: a mask_mod becomes a kernel that visits only the tiles of the window.

    attnc inspect examples/sliding_window.py:sliding_window --stage math

shows the loop bounds that attnc derives from the function: no block mask is ever built.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import attnc

WINDOW = 256


@attnc.kernel
def sliding_window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < WINDOW)


def main() -> None:
    torch.manual_seed(0)
    n = 2048
    q, k, v = (torch.randn(1, 4, n, 64) for _ in range(3))

    out = sliding_window(q, k, v)

    i = torch.arange(n)
    visible = (i[:, None] >= i) & (i[:, None] - i < WINDOW)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

    tiles = sliding_window.analyze(n, n)
    total = tiles.n_empty + tiles.n_partial + tiles.n_full
    print(
        f"{n} tokens, window {WINDOW}: {tiles.n_empty} of {total} tiles of 128 x 128 are skipped,"
    )
    print(f"{tiles.n_full} need no mask, {tiles.n_partial} apply it.")
    print(f"Largest difference from dense attention: {(out - expected).abs().max():.1e}")


if __name__ == "__main__":
    main()
