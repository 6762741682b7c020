"""What programs find defined."""

from __future__ import annotations

PREAMBLE = """
import functools, math, numpy as np, torch, attnc, attnc.testing
import attnc.in_graph.operators
from attnc import *
from attnc import interchange, layout, library, prove
from attnc.runtime import cpu
cpu.OPTIMIZATION = "-O1"
torch.manual_seed(0)
torch.set_num_threads(1)
Q, K, V = torch.randn(3, 1, 2, 20, 16)
LSE = torch.randn(1, 2, 20)
NUMBERS = torch.arange(20)
IDS = NUMBERS // 4
def causal(b, h, q, k): return q >= k
def decay(s, b, h, q, k): return s + (k - q)
def raising(b, h, q, k): raise ZeroDivisionError("the user's own")
def recursing(b, h, q, k): return recursing(b, h, q, k)
def two(a, b): return a >= b
def nothing(b, h, q, k): pass
async def later(b, h, q, k): return q >= k
def by_turns(b, h, q, k): yield q >= k
def chained(n, step):
    def mask(b, h, q, k):
        for i in range(n): q = step(q, i, k)
        return q >= k
    return mask
def any_of(n, balanced=False):
    def mask(b, h, q, k):
        terms = [q - k == 3 * i for i in range(n)]
        if not balanced: return functools.reduce(lambda x, y: x | y, terms)
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2])
            terms = [x | y for x, y in pairs] + terms[len(terms) // 2 * 2:]
        return terms[0]
    return mask
class Sub(torch.Tensor): pass
MASK, SCORE, ORDER = kernel(causal), kernel(decay), layout.raster(20)
BLOCKS = create_block_mask(causal, None, None, 256, 256, device="cpu")
ANALYSIS = analyze(causal, 1, 2, 256, 256)
LONG = torch.randn(1, 2, 256, 16)
def use(blocks):
    str(blocks), repr(blocks), blocks.to_dense(), blocks.numel()
    return attention(LONG, LONG, LONG, mask=blocks).shape
def fresh(name, value):
    blocks = create_block_mask(causal, None, None, 256, 256, device="cpu")
    setattr(blocks, name, value)
    return use(blocks)
def attended(mask=None, score=None):
    out = attention(Q, K, V, mask=mask, score=score)
    q, k, v = (x.double() for x in (Q, K, V))
    expected = attention(q, k, v, mask=mask, score=score, backend="reference")
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-4, equal_nan=True)
    return "as the oracle"
def freed(x):
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x
def op(mask="", score="", captured=(), blocks=(), numbers=(), geometry=(), q=Q, k=Q, v=Q, scale=None):
    return torch.ops.attnc.attention(q, k, v, list(captured), list(blocks), mask, score,
                                     list(numbers), list(geometry), scale, True, True, None, False)
def back(grad=Q, grad_lse=None, q=Q, out=Q, lse=LSE, captured=(), score="", needs=(True,) * 3):
    return torch.ops.attnc.attention_backward(grad, grad_lse, q, q, q, out, lse, list(captured), [], "",
                                              score, [], [], None, list(needs), None, False)
"""
