"""Calls that compute attention, and of what combines masks and scores."""

from __future__ import annotations

CALLS = {
    "kernel": (
        "kernel(causal, score=<decay>, scale=<0.5>, enable_gqa=<False>, layout=<None>, "
        "backend=<'cpu'>, strict=<False>, return_lse=<False>)(Q, K, V)"
    ),
    "kernel(None)": "kernel(<fn:causal>)(Q, K, V)",
    "kernel_mask": "kernel(decay, mask=<causal>)(Q, K, V)",
    "attention": (
        "attention(<q:Q>, k=<K>, v=<V>, mask=<causal>, score=<decay>, scale=<0.5>, "
        "enable_gqa=<False>, return_lse=<True>, layout=<ORDER>, backend=<'cpu'>, "
        "strict=<False>)"
    ),
    "reference": "attention(<q:Q>, <k:K>, <v:V>, backend='reference')",
    "Kernel.call": "MASK(<q:Q>, <k:K>, <v:V>)",
    "Kernel call": "MASK(Q, K, V, scale=<1.0>, score=<None>)",
    "Kernel.and": "(MASK & <x:causal>)(Q, K, V)",
    "Kernel.rand": "(<x:causal> | MASK)(Q, K, V)",
    "Kernel.then": "SCORE.then(<x:decay>)(Q, K, V)",
    "Kernel.where": "SCORE.where(<x:causal>)(Q, K, V)",
    "flex_attention": (
        "flex_attention(<query:Q>, key=<K>, value=<V>, score_mod=<decay>, "
        "block_mask=<create_block_mask(causal,1,1,20,20,device='cpu')>, scale=<0.5>, "
        "enable_gqa=<False>, return_lse=<False>, kernel_options=<{}>, "
        "return_aux=<AuxRequest(lse=True)>)"
    ),
    "flex_attention_lse": "flex_attention(<query:Q>, <key:K>, <value:V>, return_lse=<True>)",
    "flex_options": "flex_attention(Q, K, V, kernel_options=dict(BACKEND=<x:'TRITON'>))",
    "flex_aux": "flex_attention(Q, K, V, return_aux=AuxRequest(<lse:True>, <max_scores:True>))",
    "and_masks": "attention(Q, K, V, mask=and_masks(<a:causal>, <b:causal>))",
    "or_masks": "attention(Q, K, V, mask=or_masks(<a:causal>, <b:causal>))",
}
