"""Systems whose heads share the context out among them by computing with their number."""

from __future__ import annotations

from typing import Any

from examples.systems.catalogue import Parts, system


@system(
    "S2-Attention",
    source="Efficient LLM Training and Serving with Heterogeneous Context Sharding among Attention "
    "Heads, arXiv:2407.17678",
    shape=(1, 4, 128, 128),
)
def s2_attention() -> Parts:
    """The last blocks, and every fourth block of the past: another one for each head."""
    block, n_local, stride = 4, 2, 4

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_block, kv_block = q_idx // block, kv_idx // block
        near = q_block - kv_block < n_local
        return (q_idx >= kv_idx) & (near | ((kv_block + h + 1) % stride == 0))

    return Parts(mask)
