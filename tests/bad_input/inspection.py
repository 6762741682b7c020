"""Calls that tell about a function."""

from __future__ import annotations

CALLS = {
    "Kernel.explain": "MASK.explain(shape=<(1,1,64,64,16)>)",
    "Kernel.source": "MASK.source(<target:'cpu'>)",
    "Kernel.analyze": "MASK.analyze(<Q_LEN:256>, <KV_LEN:256>, B=<1>, H=<1>, BLOCK_SIZE=<128>)",
    "analyze": (
        "analyze(<mask_mod:causal>, B=<1>, H=<1>, Q_LEN=<256>, KV_LEN=<256>, "
        "BLOCK_SIZE=<128>, tensors=<()>)"
    ),
    "Analysis.why": "ANALYSIS.why(<q_block:0>, kv_block=<0>, b=<0>, h=<0>)",
    "Analysis.kind": "ANALYSIS.kind(<q_block:0>, kv_block=<0>, b=<0>, h=<0>)",
    "Analysis.cost": (
        "ANALYSIS.cost(<head_dim:64>, value_dim=<64>, kv_heads=<1>, dtype=<'float32'>, "
        "score=<decay>, target=<'sm_80'>, n_threads=<1>, backward=<False>)"
    ),
    "Analysis.picture": "ANALYSIS.picture(<width:64>, b=<0>, h=<0>, height=<10>)",
}
