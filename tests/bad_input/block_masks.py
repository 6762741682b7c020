"""Calls that make block masks, and of their methods; ``use`` attends by one."""

from __future__ import annotations

CALLS = {
    "create_block_mask": (
        "create_block_mask(<mask_mod:causal>, B=<1>, H=<1>, Q_LEN=<256>, KV_LEN=<256>, "
        "device=<'cpu'>, BLOCK_SIZE=<128>, _compile=<False>, separate_full_blocks=<True>, "
        "compute_dq_write_order=<False>, dq_kv_order=<True>)"
    ),
    "create_mask": (
        "create_mask(<mod_fn:causal>, B=<1>, H=<1>, Q_LEN=<20>, KV_LEN=<20>, device=<'cpu'>)"
    ),
    "BlockMask": (
        "use(BlockMask(<seq_lengths:(256,256)>, <kv_num_blocks:BLOCKS.kv_num_blocks>, "
        "<kv_indices:BLOCKS.kv_indices>, <full_kv_num_blocks:BLOCKS.full_kv_num_blocks>, "
        "<full_kv_indices:BLOCKS.full_kv_indices>, <q_num_blocks:BLOCKS.q_num_blocks>, "
        "<q_indices:BLOCKS.q_indices>, <full_q_num_blocks:BLOCKS.full_q_num_blocks>, "
        "<full_q_indices:BLOCKS.full_q_indices>, <BLOCK_SIZE:(128,128)>, <mask_mod:causal>))"
    ),
    "BlockMask.from_kv_blocks": (
        "use(BlockMask.from_kv_blocks(kv_num_blocks=<BLOCKS.kv_num_blocks>, "
        "kv_indices=<BLOCKS.kv_indices>, full_kv_num_blocks=<BLOCKS.full_kv_num_blocks>, "
        "full_kv_indices=<BLOCKS.full_kv_indices>, BLOCK_SIZE=<128>, mask_mod=<causal>, "
        "seq_lengths=<(256,256)>, compute_q_blocks=<True>, dq_write_order=<None>, "
        "dq_write_order_full=<None>, dq_kv_order=<None>))"
    ),
    "block_mask.getitem": "BLOCKS[<i:0>, <j:0>, <k:0>]",
    "block_mask.getitem1": "BLOCKS[<i:0>]",
    "block_mask.to": "BLOCKS.to(<device:'cpu'>)",
    "block_mask._adjust": "BLOCKS._adjust(<new_q_len:128>, new_kv_len=<128>)",
    "block_mask.to_string": "BLOCKS.to_string(<grid_size:20>, limit=<4>)",
    "block_mask.as_tuple": "BLOCKS.as_tuple(<flatten:True>)",
    "block_mask.seq_lengths=": "fresh('seq_lengths', <x:(256,256)>)",
    "block_mask.BLOCK_SIZE=": "fresh('BLOCK_SIZE', <x:(128,128)>)",
    "block_mask.mask_mod=": "fresh('mask_mod', <x:causal>)",
    "block_mask.kv_indices=": "fresh('kv_indices', <x:BLOCKS.kv_indices>)",
    "block_mask.kv_num_blocks=": "fresh('kv_num_blocks', <x:BLOCKS.kv_num_blocks>)",
}
