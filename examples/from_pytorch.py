"""A script for PyTorch's FlexAttention, run by it and by attnc: the import is all that differs.

    attnc show examples/from_pytorch.py:same_document

PyTorch is timed as the script calls it, eager; `python -m benchmarks.cpu` compiles it.
"""

from functools import partial
from timeit import repeat

import torch
import torch.nn.attention.flex_attention as pytorch
from rich import print
from rich.table import Table

from attnc import flex

torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 4, 1024, 64)
doc = torch.repeat_interleave(torch.arange(4), torch.tensor([300, 20, 512, 192]))
slopes = torch.exp2(-torch.arange(1.0, 5.0))

causal = lambda b, h, q_idx, kv_idx: q_idx >= kv_idx
window = lambda b, h, q_idx, kv_idx: q_idx - kv_idx < 256
same_document = lambda b, h, q_idx, kv_idx: doc[q_idx] == doc[kv_idx]
prefix = lambda b, h, q_idx, kv_idx: kv_idx < 100
softcap = lambda score, b, h, q_idx, kv_idx: 20 * torch.tanh(score / 20)
alibi = lambda score, b, h, q_idx, kv_idx: score - slopes[h] * (q_idx - kv_idx)


def script(flex):
    attend = flex.flex_attention
    create = partial(flex.create_block_mask, B=None, H=None, Q_LEN=1024, KV_LEN=1024, device="cpu")
    mask = create(causal)
    yield "causal, lse", partial(attend, q, k, v, None, mask, return_aux=flex.AuxRequest(lse=True))
    yield "causal, soft-cap", partial(attend, q, k, v, softcap, mask)
    yield "causal, ALiBi", partial(attend, q, k, v, alibi, mask, scale=0.1)
    yield "sliding window", partial(attend, q, k, v, None, create(flex.and_masks(causal, window)))
    yield "documents", partial(attend, q, k, v, block_mask=create(same_document, BLOCK_SIZE=64))
    yield "prefix LM", partial(attend, q, k, v, None, create(flex.or_masks(causal, prefix)))
    row = mask[:, :, 700 // mask.BLOCK_SIZE[0]]
    row.mask_mod, row.seq_lengths = (lambda b, h, q_idx, kv_idx: q_idx + 700 >= kv_idx), (1, 1024)
    yield "decoding at 700", partial(attend, q[:, :, :1], k, v, None, row)


def main():
    table = Table("", "attnc: ms", "PyTorch, eager: ms", "largest difference")
    for (name, *calls), (_, call) in zip(script(flex), script(pytorch), strict=True):
        outs = [out if torch.is_tensor(out) else out[1].lse for out in (calls[0](), call())]
        torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-4)
        times = [f"{1e3 * min(repeat(c, number=1, repeat=3)):.2f}" for c in (*calls, call)]
        table.add_row(name, *times, f"{(outs[0] - outs[1]).abs().max():.0e}")
    print(table)


if __name__ == "__main__":
    main()
