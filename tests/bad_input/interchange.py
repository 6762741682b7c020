"""Calls of ``attnc.interchange``."""

from __future__ import annotations

CALLS = {
    "interchange.from_dense": "interchange.from_dense(<mask:torch.ones(20,20,dtype=torch.bool)>)",
    "interchange.to_dense": (
        "interchange.to_dense(<mask:causal>, Q_LEN=<20>, KV_LEN=<20>, B=<1>, H=<1>, "
        "dtype=<torch.bool>, device=<'cpu'>)"
    ),
    "interchange.from_cu_seqlens": (
        "interchange.from_cu_seqlens(<cu_seqlens:torch.tensor([0,5,20])>, "
        "cu_seqlens_k=<torch.tensor([0,5,20])>, causal=<False>)"
    ),
    "interchange.to_cu_seqlens": (
        "interchange.to_cu_seqlens(<mask:lambda b,h,q,k: q//5 == k//5>, Q_LEN=<20>, "
        "KV_LEN=<20>, B=<1>, H=<1>)"
    ),
    "interchange.from_flashmask": (
        "interchange.from_flashmask(<startend_row_indices:torch.full((1,1,20,1), 20)>, "
        "causal=<True>, n_queries=<20>, n_heads=<2>)"
    ),
    "interchange.to_flashmask": (
        "interchange.to_flashmask(<mask:causal>, Q_LEN=<20>, KV_LEN=<20>, B=<1>, H=<1>, "
        "causal=<True>)"
    ),
}
