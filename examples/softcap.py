"""Soft capping: tanh keeps scores within a bound; score_mods are chained with ``then``.

    attnc inspect examples/softcap.py:capped_with_decay --stage triton --target sm_90

shows the Triton kernel. ``where`` gives a score_mod its mask.
"""

from __future__ import annotations

import torch

import attnc

CAP = 20.0


@attnc.kernel
def softcap(score, b, h, q_idx, kv_idx):
    return CAP * torch.tanh(score / CAP)


capped_with_decay = softcap.then(
    lambda score, b, h, q_idx, kv_idx: score - 0.05 * (q_idx - kv_idx).abs()
).where(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx)


def main() -> None:
    torch.manual_seed(0)
    n = 700
    q, k, v = (torch.randn(1, 4, n, 64) for _ in range(3))
    q = 30 * q  # scores far beyond the cap

    out, lse = capped_with_decay(q, k, v, return_lse=True)

    i = torch.arange(n)
    scores = CAP * torch.tanh(q @ k.mT / 8 / CAP) - 0.05 * (i[:, None] - i).abs()
    scores = scores.masked_fill(i[:, None] < i, float("-inf"))
    torch.testing.assert_close(out, scores.softmax(-1) @ v, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse, scores.logsumexp(-1), rtol=1e-4, atol=1e-5)
    print(f"largest score before the cap {(q @ k.mT / 8).max():.0f}, after it {scores.max():.1f}")
    print(
        f"Largest difference from dense attention: {(out - scores.softmax(-1) @ v).abs().max():.1e}"
    )


if __name__ == "__main__":
    main()
