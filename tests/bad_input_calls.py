"""Public calls as text, each argument with a right value, and values that are wrong for most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Call:
    """A call with a place for each argument, and a right value for each."""

    name: str
    template: str
    arguments: Mapping[str, str]

    def program(self, **instead: str) -> str:
        return "result = " + self.template.format(**{**self.arguments, **instead})


#: For any argument: a few are right for some of them.
STRANGE = (
    *("None", "True", "-1", "1.5", "math.nan", "2**31", "2**70", "10**5000"),
    *("'x'", "b'x'", "[1]", "()", "(1, 2, 3)", "{}", "object()", "np.ones(3)", "np.int64(3)"),
    *("torch.tensor(3)", "torch.ones(3)", "torch.zeros(0)", "Q.int()", "Q.to('meta')"),
    *("Q.to_sparse()", "Q.to(torch.complex64)", "Q.as_subclass(Sub)", "freed(Q)"),
    "torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)])",
    "torch.quantize_per_tensor(Q, 1.0, 0, torch.quint8)",
    *("causal", "decay", "two", "nothing", "later", "by_turns", "max", "type", "BLOCKS", "SCORE"),
)

#: Usual mistakes: the name of a call, an argument, its value, the class of the error.
KNOWN = (
    ("attention", "q", "[[1.0]]", "InputTypeError"),
    ("attention", "k", "K.half()", "InputDTypeError"),
    ("attention", "v", "V[0]", "DimensionsError"),
    ("attention", "k", "K.to('meta')", "DeviceError"),
    ("attention", "v", "V[:, :, :7]", "ShapeError"),
    ("attention", "q", "torch.randn(1, 3, 20, 16)", "ShapeError"),
    ("attention", "k", "K.to_sparse()", "InputLayoutError"),
    ("attention", "v", "freed(V)", "FreedStorageError"),
    ("attention", "scale", "math.nan", "ScaleError"),
    ("testing.check", "limits", "attnc.testing.Limits(-1, 0, -3)", "CheckArgumentError"),
    ("testing.check", "backends", "('foo',)", "CheckArgumentError"),
    ("testing.check", "dtypes", "('int8',)", "CheckArgumentError"),
    ("testing.check", "device", "'cuda:99'", "CheckArgumentError"),
    ("reference", "q", "freed(Q)", "FreedStorageError"),
    ("reference", "k", "freed(K)", "FreedStorageError"),
    ("attention", "scale", "torch.tensor(0.5, requires_grad=True)", "ScaleError"),
    ("attention", "return_lse", "'yes'", "FlagError"),
    ("attention", "enable_gqa", "[]", "FlagError"),
    ("attention", "strict", "2", "FlagError"),
    ("attention", "backend", "''", "BackendError"),
    ("attention", "mask", "IDS", "NotAModError"),
    ("attention", "score", "causal", "WrongModKindError"),
    ("attention", "layout", "20", "LayoutArgumentError"),
    ("analyze", "Q_LEN", "2**40", "AnalysisArgumentError"),
    ("analyze", "BLOCK_SIZE", "0", "AnalysisArgumentError"),
    ("create_block_mask", "Q_LEN", "-1", "BlockMaskSizeError"),
    ("create_block_mask", "BLOCK_SIZE", "1.5", "BlockMaskSizeError"),
    ("create_block_mask", "device", "'gpu'", "MaskDeviceError"),
    ("BlockMask.from_kv_blocks", "kv_indices", "BLOCKS.kv_indices + 9", "BlockMaskArgumentError"),
    (
        "BlockMask.from_kv_blocks",
        "kv_num_blocks",
        "BLOCKS.kv_num_blocks + 9",
        "BlockMaskArgumentError",
    ),
    (
        "BlockMask.from_kv_blocks",
        "kv_num_blocks",
        "BLOCKS.kv_num_blocks[..., :1]",
        "BlockMaskArgumentError",
    ),
    ("prove.causal", "budget", "-1", "ProofArgumentError"),
    ("layout.tiled", "grid", "(2**20, 2**20)", "LayoutArgumentError"),
    ("interchange.from_dense", "mask", "Q", "InterchangeArgumentError"),
    ("library.sliding_window", "left", "-1", "LibraryArgumentError"),
)

#: Arguments of ``attended``: masks and scores that are right, odd or hopeless.
MODS = (
    *("later", "by_turns", "max", "len", "nothing", "Sub", "torch.nn.Linear(2, 2)"),
    "lambda *indices: indices[2] >= indices[3]",
    "lambda b, h, q, k, w=3: q - k < w",
    "lambda b, h, q, k, *, w: q - k < w",
    "functools.partial(lambda w, b, h, q, k: q - k < w, 3)",
    *(f"lambda b, h, q, k: {value}" for value in ("1", "1.0", "'x'", "(q >= k, k)", "IDS >= q")),
    *(
        f"lambda b, h, q, k: {value}"
        for value in ("True", "torch.tensor(True)", "torch.ones(1) > 0")
    ),
    *(f"lambda b, h, q, k: q >= {value}" for value in ("'x'", "[1]", "None", "np.ones(3)", "1j")),
    *(f"lambda b, h, q, k: q >= {value}" for value in ("2**63", "-(2**70)", "1e400", "math.nan")),
    *(f"lambda b, h, q, k: q {op} >= k" for op in ("<< 99", "+ 1.5", "@ 3", "** 70", "** -1")),
    *(f"lambda b, h, q, k: q {op} >= k" for op in ("+ 2**31", "* 2**62", "// 0", "% 0", "% k")),
    "lambda b, h, q, k: torch.zeros(0)[q] >= k",
    "lambda b, h, q, k: IDS[q + 9] >= k",
    "lambda b, h, q, k: IDS.to(torch.uint8)[q] - IDS.to(torch.uint8)[k] >= 0",
    "lambda b, h, q, k: True if q > k else False",
    "lambda b, h, q, k: (q >= k) & nothing(b, h, q, k)",
    "lambda b, h, q, k: q(1) >= k",
    "lambda b, h, q, k: [1, 2, 3][q] > 0",
    "lambda b, h, q, k: q in (1, 2)",
    "lambda b, h, q, k: math.sqrt(q) > 0",
    "lambda b, h, q, k: IDS.add_(1)[q] >= k",
    "lambda b, h, q, k: IDS.__setitem__(0, 5) or q >= k",
    "lambda b, h, q, k: IDS[q.float()] > 0",
    "lambda b, h, q, k: freed(NUMBERS)[q] > k",
    "lambda b, h, q, k: NUMBERS.to('meta')[q] > k",
    "lambda b, h, q, k: NUMBERS.to_sparse()[q] > k",
    "lambda b, h, q, k: NUMBERS.to(torch.complex64)[q] > k",
    "lambda b, h, q, k: torch.rand(()) > 0.5",
    "chained(500, lambda q, i, k: q + i)",
    "any_of(200)",
    "any_of(10000)",
    "any_of(10000, balanced=True)",
    *(
        f"None, lambda s, b, h, q, k: {value}"
        for value in ("s > 0", "3", "None", "'x'", "q", "s * 1j")
    ),
)

#: What no tracer writes.
HOSTILE = (
    "op('q_idx')",
    "op('score > 0.5')",
    "op(score='q_idx')",
    "op('t0: int64\\nt0[q_idx] >= int64(0)')",
    "op('t0: float32\\nt0[q_idx] >= 0.5', captured=[NUMBERS])",
    "op('t0: int64\\nt0[q_idx, kv_idx] >= int64(1)', captured=[NUMBERS])",
    "op('t0: float32\\nt0[q_idx] > 0.5', captured=[Q])",
    "op('t0: int64\\nt0[q_idx] >= int64(1)', captured=[freed(NUMBERS)])",
    "op('u: uniform[int32]\\nu > 3')",
    "op('r0 > 3')",
    "op(score='sum(score for r0 in range(1000000000))')",
    "op('p0: int32\\nq_idx >= p0')",
    "op('p0: int32\\nq_idx >= p0', numbers=[2**40])",
    "op('q_idx >= 99999999999999999999999')",
    "op('__import__(\"os\").abort()')",
    "op('(' * 5000)",
    "op('~' * 100000 + 'q_idx')",
    "op('+'.join(['q_idx'] * 20000) + ' > 0')",
    "op('\\0')",
    "op(q=Q[0])",
    "op(q=Q.int())",
    "op(k=Q[..., :8])",
    "op(k=Q.to('meta'))",
    "op(q=Q.to_sparse())",
    "op(k=freed(Q))",
    "op(scale=math.nan)",
    "op(geometry=[20, 20, 128, 128])",
    "op(geometry=[20, 20, 0, 0], blocks=[NUMBERS, NUMBERS])",
    "op(geometry=[20, 20, 128, 128], blocks=[NUMBERS[1:2].view(1, 1, 1), NUMBERS[7:8].view(1, 1, 1, 1)])",
    "op(geometry=[20, 20, 128, 128], blocks=[NUMBERS[9:10].view(1, 1, 1), NUMBERS[:1].view(1, 1, 1, 1)])",
    "op(geometry=[1, 1, 20, 20, 128, 128], blocks=[NUMBERS] * 4)",
    "op(geometry=[1, 1, 20, 20, 128, 128], blocks=[NUMBERS[:2], NUMBERS[:1], NUMBERS[9:10], NUMBERS[1:2]])",
    "back(lse=LSE[:, :1])",
    "back(out=Q[:, :1])",
    "back(grad=Q[:, :, :3])",
    "back(grad=freed(Q))",
    "back(out=freed(Q))",
    "back(lse=freed(LSE))",
    "back(grad_lse=freed(LSE))",
    "back(needs=(True,) * 4)",
    "back(q=Q.int())",
)

CALLS = (
    Call(
        "kernel",
        "kernel(causal, score={score}, scale={scale}, enable_gqa={enable_gqa}, layout={layout}, backend={backend}, strict={strict}, return_lse={return_lse})(Q, K, V)",
        {
            "score": "decay",
            "scale": "0.5",
            "enable_gqa": "False",
            "layout": "None",
            "backend": "'cpu'",
            "strict": "False",
            "return_lse": "False",
        },
    ),
    Call("kernel(None)", "kernel({fn})(Q, K, V)", {"fn": "causal"}),
    Call(
        "testing.check",
        "attnc.testing.check(causal, dtypes={dtypes}, backends={backends}, device={device}, limits={limits}, examples={examples}, seed={seed}, at={at}, laws='tiles')",
        {
            "dtypes": "('float32',)",
            "backends": "()",
            "device": "'cpu'",
            "limits": "None",
            "examples": "1",
            "seed": "None",
            "at": "None",
        },
    ),
    Call(
        "kernel_mask",
        "kernel(decay, mask={mask})(Q, K, V)",
        {"mask": "causal"},
    ),
    Call(
        "attention",
        "attention({q}, k={k}, v={v}, mask={mask}, score={score}, scale={scale}, enable_gqa={enable_gqa}, return_lse={return_lse}, layout={layout}, backend={backend}, strict={strict})",
        {
            "q": "Q",
            "k": "K",
            "v": "V",
            "mask": "causal",
            "score": "decay",
            "scale": "0.5",
            "enable_gqa": "False",
            "return_lse": "True",
            "layout": "ORDER",
            "backend": "'cpu'",
            "strict": "False",
        },
    ),
    Call(
        "reference",
        "attention({q}, {k}, {v}, backend='reference')",
        {"q": "Q", "k": "K", "v": "V"},
    ),
    Call(
        "Kernel.call",
        "MASK({q}, {k}, {v})",
        {"q": "Q", "k": "K", "v": "V"},
    ),
    Call(
        "Kernel call",
        "MASK(Q, K, V, scale={scale}, score={score})",
        {"scale": "1.0", "score": "None"},
    ),
    Call(
        "Kernel.and",
        "(MASK & {x})(Q, K, V)",
        {"x": "causal"},
    ),
    Call(
        "Kernel.rand",
        "({x} | MASK)(Q, K, V)",
        {"x": "causal"},
    ),
    Call(
        "Kernel.then",
        "SCORE.then({x})(Q, K, V)",
        {"x": "decay"},
    ),
    Call(
        "Kernel.where",
        "SCORE.where({x})(Q, K, V)",
        {"x": "causal"},
    ),
    Call(
        "Kernel.explain",
        "MASK.explain(shape={shape})",
        {"shape": "(1,1,64,64,16)"},
    ),
    Call(
        "Kernel.source",
        "MASK.source({target})",
        {"target": "'cpu'"},
    ),
    Call(
        "Kernel.analyze",
        "MASK.analyze({Q_LEN}, {KV_LEN}, B={B}, H={H}, BLOCK_SIZE={BLOCK_SIZE})",
        {"Q_LEN": "256", "KV_LEN": "256", "B": "1", "H": "1", "BLOCK_SIZE": "128"},
    ),
    Call(
        "analyze",
        "analyze({mask_mod}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, BLOCK_SIZE={BLOCK_SIZE}, tensors={tensors})",
        {
            "mask_mod": "causal",
            "B": "1",
            "H": "1",
            "Q_LEN": "256",
            "KV_LEN": "256",
            "BLOCK_SIZE": "128",
            "tensors": "()",
        },
    ),
    Call(
        "Analysis.why",
        "ANALYSIS.why({q_block}, kv_block={kv_block}, b={b}, h={h})",
        {"q_block": "0", "kv_block": "0", "b": "0", "h": "0"},
    ),
    Call(
        "Analysis.kind",
        "ANALYSIS.kind({q_block}, kv_block={kv_block}, b={b}, h={h})",
        {"q_block": "0", "kv_block": "0", "b": "0", "h": "0"},
    ),
    Call(
        "Analysis.cost",
        "ANALYSIS.cost({head_dim}, value_dim={value_dim}, kv_heads={kv_heads}, dtype={dtype}, score={score}, target={target}, n_threads={n_threads}, backward={backward})",
        {
            "head_dim": "64",
            "value_dim": "64",
            "kv_heads": "1",
            "dtype": "'float32'",
            "score": "decay",
            "target": "'sm_80'",
            "n_threads": "1",
            "backward": "False",
        },
    ),
    Call(
        "Analysis.picture",
        "ANALYSIS.picture({width}, b={b}, h={h}, height={height})",
        {"width": "64", "b": "0", "h": "0", "height": "10"},
    ),
    Call(
        "flex_attention",
        "flex_attention({query}, key={key}, value={value}, score_mod={score_mod}, block_mask={block_mask}, scale={scale}, enable_gqa={enable_gqa}, return_lse={return_lse}, kernel_options={kernel_options}, return_aux={return_aux})",
        {
            "query": "Q",
            "key": "K",
            "value": "V",
            "score_mod": "decay",
            "block_mask": "create_block_mask(causal,1,1,20,20,device='cpu')",
            "scale": "0.5",
            "enable_gqa": "False",
            "return_lse": "False",
            "kernel_options": "{}",
            "return_aux": "AuxRequest(lse=True)",
        },
    ),
    Call(
        "flex_attention_lse",
        "flex_attention({query}, {key}, {value}, return_lse={return_lse})",
        {"query": "Q", "return_lse": "True", "key": "K", "value": "V"},
    ),
    Call(
        "flex_options",
        "flex_attention(Q, K, V, kernel_options=dict(BACKEND={x}))",
        {"x": "'TRITON'"},
    ),
    Call(
        "flex_aux",
        "flex_attention(Q, K, V, return_aux=AuxRequest({lse}, {max_scores}))",
        {"lse": "True", "max_scores": "True"},
    ),
    Call(
        "create_block_mask",
        "create_block_mask({mask_mod}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, device={device}, BLOCK_SIZE={BLOCK_SIZE}, _compile={_compile}, separate_full_blocks={separate_full_blocks}, compute_dq_write_order={compute_dq_write_order}, dq_kv_order={dq_kv_order})",
        {
            "mask_mod": "causal",
            "B": "1",
            "H": "1",
            "Q_LEN": "256",
            "KV_LEN": "256",
            "device": "'cpu'",
            "BLOCK_SIZE": "128",
            "_compile": "False",
            "separate_full_blocks": "True",
            "compute_dq_write_order": "False",
            "dq_kv_order": "True",
        },
    ),
    Call(
        "create_mask",
        "create_mask({mod_fn}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, device={device})",
        {"mod_fn": "causal", "B": "1", "H": "1", "Q_LEN": "20", "KV_LEN": "20", "device": "'cpu'"},
    ),
    Call(
        "and_masks",
        "attention(Q, K, V, mask=and_masks({a}, {b}))",
        {"a": "causal", "b": "causal"},
    ),
    Call(
        "or_masks",
        "attention(Q, K, V, mask=or_masks({a}, {b}))",
        {"a": "causal", "b": "causal"},
    ),
    Call(
        "BlockMask",
        "use(BlockMask({seq_lengths}, {kv_num_blocks}, {kv_indices}, {full_kv_num_blocks}, {full_kv_indices}, {q_num_blocks}, {q_indices}, {full_q_num_blocks}, {full_q_indices}, {BLOCK_SIZE}, {mask_mod}))",
        {
            "seq_lengths": "(256,256)",
            "kv_num_blocks": "BLOCKS.kv_num_blocks",
            "kv_indices": "BLOCKS.kv_indices",
            "full_kv_num_blocks": "BLOCKS.full_kv_num_blocks",
            "full_kv_indices": "BLOCKS.full_kv_indices",
            "q_num_blocks": "BLOCKS.q_num_blocks",
            "q_indices": "BLOCKS.q_indices",
            "full_q_num_blocks": "BLOCKS.full_q_num_blocks",
            "full_q_indices": "BLOCKS.full_q_indices",
            "BLOCK_SIZE": "(128,128)",
            "mask_mod": "causal",
        },
    ),
    Call(
        "BlockMask.from_kv_blocks",
        "use(BlockMask.from_kv_blocks(kv_num_blocks={kv_num_blocks}, kv_indices={kv_indices}, full_kv_num_blocks={full_kv_num_blocks}, full_kv_indices={full_kv_indices}, BLOCK_SIZE={BLOCK_SIZE}, mask_mod={mask_mod}, seq_lengths={seq_lengths}, compute_q_blocks={compute_q_blocks}, dq_write_order={dq_write_order}, dq_write_order_full={dq_write_order_full}, dq_kv_order={dq_kv_order}))",
        {
            "kv_num_blocks": "BLOCKS.kv_num_blocks",
            "kv_indices": "BLOCKS.kv_indices",
            "full_kv_num_blocks": "BLOCKS.full_kv_num_blocks",
            "full_kv_indices": "BLOCKS.full_kv_indices",
            "BLOCK_SIZE": "128",
            "mask_mod": "causal",
            "seq_lengths": "(256,256)",
            "compute_q_blocks": "True",
            "dq_write_order": "None",
            "dq_write_order_full": "None",
            "dq_kv_order": "None",
        },
    ),
    Call(
        "block_mask.getitem",
        "BLOCKS[{i}, {j}, {k}]",
        {"i": "0", "j": "0", "k": "0"},
    ),
    Call(
        "block_mask.getitem1",
        "BLOCKS[{i}]",
        {"i": "0"},
    ),
    Call(
        "block_mask.to",
        "BLOCKS.to({device})",
        {"device": "'cpu'"},
    ),
    Call(
        "block_mask._adjust",
        "BLOCKS._adjust({new_q_len}, new_kv_len={new_kv_len})",
        {"new_q_len": "128", "new_kv_len": "128"},
    ),
    Call(
        "block_mask.to_string",
        "BLOCKS.to_string({grid_size}, limit={limit})",
        {"grid_size": "20", "limit": "4"},
    ),
    Call(
        "block_mask.as_tuple",
        "BLOCKS.as_tuple({flatten})",
        {"flatten": "True"},
    ),
    Call(
        "block_mask.seq_lengths=",
        "fresh('seq_lengths', {x})",
        {"x": "(256,256)"},
    ),
    Call(
        "block_mask.BLOCK_SIZE=",
        "fresh('BLOCK_SIZE', {x})",
        {"x": "(128,128)"},
    ),
    Call(
        "block_mask.mask_mod=",
        "fresh('mask_mod', {x})",
        {"x": "causal"},
    ),
    Call(
        "block_mask.kv_indices=",
        "fresh('kv_indices', {x})",
        {"x": "BLOCKS.kv_indices"},
    ),
    Call(
        "block_mask.kv_num_blocks=",
        "fresh('kv_num_blocks', {x})",
        {"x": "BLOCKS.kv_num_blocks"},
    ),
    Call(
        "prove.causal",
        "prove.causal({mask}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {"mask": "causal", "B": "1", "H": "1", "Q_LEN": "64", "KV_LEN": "64", "budget": "1000"},
    ),
    Call(
        "prove.rows_nonempty",
        "prove.rows_nonempty({mask}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {"mask": "causal", "B": "1", "H": "1", "Q_LEN": "64", "KV_LEN": "64", "budget": "1000"},
    ),
    Call(
        "prove.symmetric",
        "prove.symmetric({mask}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {"mask": "causal", "B": "1", "H": "1", "Q_LEN": "64", "KV_LEN": "64", "budget": "1000"},
    ),
    Call(
        "prove.in_bounds",
        "prove.in_bounds({mod}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {"mod": "causal", "B": "1", "H": "1", "Q_LEN": "64", "KV_LEN": "64", "budget": "1000"},
    ),
    Call(
        "prove.monotone",
        "prove.monotone({mask}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {"mask": "causal", "B": "1", "H": "1", "Q_LEN": "64", "KV_LEN": "64", "budget": "1000"},
    ),
    Call(
        "prove.implies",
        "prove.implies({mask}, other={other}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {
            "mask": "causal",
            "other": "causal",
            "B": "1",
            "H": "1",
            "Q_LEN": "64",
            "KV_LEN": "64",
            "budget": "1000",
        },
    ),
    Call(
        "prove.equal",
        "prove.equal({mask}, other={other}, B={B}, H={H}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, budget={budget})",
        {
            "mask": "causal",
            "other": "causal",
            "B": "1",
            "H": "1",
            "Q_LEN": "64",
            "KV_LEN": "64",
            "budget": "1000",
        },
    ),
    Call(
        "prove.monotone2",
        "prove.monotone(causal, longer={longer}, Q_LEN=20)",
        {"longer": "causal"},
    ),
    Call(
        "layout.raster",
        "layout.raster({grid})",
        {"grid": "(4, 5)"},
    ),
    Call(
        "layout.tiled",
        "layout.tiled({grid}, tile={tile}, axes={axes}, shift={shift})",
        {"grid": "(4, 6)", "tile": "2", "axes": "(0, 1)", "shift": "1"},
    ),
    Call(
        "layout.transposed",
        "layout.transposed({grid}, axes={axes})",
        {"grid": "(4, 5)", "axes": "(1, 0)"},
    ),
    Call(
        "layout.dilated",
        "layout.dilated({grid}, dilation={dilation})",
        {"grid": "(4, 6)", "dilation": "2"},
    ),
    Call(
        "layout.morton",
        "layout.morton({grid})",
        {"grid": "(4, 4)"},
    ),
    Call(
        "layout.sorted_by",
        "layout.sorted_by({ids}, name={name})",
        {"ids": "IDS", "name": "'x'"},
    ),
    Call(
        "layout.from_order",
        "layout.from_order({order}, name={name})",
        {"order": "torch.arange(20)", "name": "'x'"},
    ),
    Call(
        "layout.search",
        "layout.search({mask}, grid={grid}, B={B}, H={H}, BLOCK_SIZE={BLOCK_SIZE}, candidates={candidates})",
        {
            "mask": "causal",
            "grid": "(4, 5)",
            "B": "1",
            "H": "1",
            "BLOCK_SIZE": "16",
            "candidates": "[ORDER]",
        },
    ),
    Call(
        "layout.mask",
        "ORDER.mask({mask_mod})",
        {"mask_mod": "causal"},
    ),
    Call(
        "layout.score",
        "ORDER.score({score_mod})",
        {"score_mod": "decay"},
    ),
    Call(
        "layout.arrange",
        "ORDER.arrange({x})",
        {"x": "Q"},
    ),
    Call(
        "layout.restore",
        "ORDER.restore({x})",
        {"x": "Q"},
    ),
    Call(
        "interchange.from_dense",
        "interchange.from_dense({mask})",
        {"mask": "torch.ones(20,20,dtype=torch.bool)"},
    ),
    Call(
        "interchange.to_dense",
        "interchange.to_dense({mask}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, B={B}, H={H}, dtype={dtype}, device={device})",
        {
            "mask": "causal",
            "Q_LEN": "20",
            "KV_LEN": "20",
            "B": "1",
            "H": "1",
            "dtype": "torch.bool",
            "device": "'cpu'",
        },
    ),
    Call(
        "interchange.from_cu_seqlens",
        "interchange.from_cu_seqlens({cu_seqlens}, cu_seqlens_k={cu_seqlens_k}, causal={causal})",
        {
            "cu_seqlens": "torch.tensor([0,5,20])",
            "cu_seqlens_k": "torch.tensor([0,5,20])",
            "causal": "False",
        },
    ),
    Call(
        "interchange.to_cu_seqlens",
        "interchange.to_cu_seqlens({mask}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, B={B}, H={H})",
        {"mask": "lambda b,h,q,k: q//5 == k//5", "Q_LEN": "20", "KV_LEN": "20", "B": "1", "H": "1"},
    ),
    Call(
        "interchange.from_flashmask",
        "interchange.from_flashmask({startend_row_indices}, causal={causal}, n_queries={n_queries}, n_heads={n_heads})",
        {
            "startend_row_indices": "torch.full((1,1,20,1), 20)",
            "causal": "True",
            "n_queries": "20",
            "n_heads": "2",
        },
    ),
    Call(
        "interchange.to_flashmask",
        "interchange.to_flashmask({mask}, Q_LEN={Q_LEN}, KV_LEN={KV_LEN}, B={B}, H={H}, causal={causal})",
        {"mask": "causal", "Q_LEN": "20", "KV_LEN": "20", "B": "1", "H": "1", "causal": "True"},
    ),
    Call(
        "library.chunked",
        "library.chunked(size={size}, n_before={n_before}).ir",
        {"size": "4", "n_before": "1"},
    ),
    Call(
        "library.block_causal",
        "library.block_causal(size={size}).ir",
        {"size": "4"},
    ),
    Call(
        "library.block_diffusion",
        "library.block_diffusion(length={length}, block={block}).ir",
        {"length": "10", "block": "2"},
    ),
    Call(
        "library.neighborhood",
        "library.neighborhood(grid={grid}, kernel_size={kernel_size}, dilation={dilation}, stride={stride}, is_causal={is_causal}).ir",
        {"grid": "(4,5)", "kernel_size": "3", "dilation": "1", "stride": "1", "is_causal": "False"},
    ),
    Call(
        "library.windows",
        "library.windows(grid={grid}, size={size}, shift={shift}).ir",
        {"grid": "(4,5)", "size": "2", "shift": "1"},
    ),
    Call(
        "library.sliding_tiles",
        "library.sliding_tiles(grid={grid}, tile={tile}, n_tiles={n_tiles}).ir",
        {"grid": "(4,6)", "tile": "2", "n_tiles": "1"},
    ),
    Call(
        "library.axial",
        "library.axial(grid={grid}, axis={axis}).ir",
        {"grid": "(4,5)", "axis": "1"},
    ),
    Call(
        "library.alibi_slopes",
        "library.alibi_slopes(n_heads={n_heads}, device={device})",
        {"n_heads": "2", "device": "'cpu'"},
    ),
    Call(
        "library.alibi",
        "library.alibi(slopes={slopes}, device={device}).ir",
        {"slopes": "2", "device": "'cpu'"},
    ),
    Call(
        "library.softcap",
        "library.softcap(cap={cap}).ir",
        {"cap": "20.0"},
    ),
    Call(
        "library.relative_bias",
        "library.relative_bias(table={table}).ir",
        {"table": "torch.ones(2, 9)"},
    ),
    Call(
        "library.relative_bias_2d",
        "library.relative_bias_2d(table={table}, grid={grid}).ir",
        {"table": "torch.ones(2, 7, 9)", "grid": "(4, 5)"},
    ),
    Call(
        "library.t5_bias",
        "library.t5_bias(table={table}, bidirectional={bidirectional}, max_distance={max_distance}).ir",
        {"table": "torch.ones(32, 2)", "bidirectional": "True", "max_distance": "128"},
    ),
    Call(
        "library.periodic_bias",
        "library.periodic_bias(slopes={slopes}, period={period}).ir",
        {"slopes": "torch.ones(2)", "period": "4"},
    ),
    Call(
        "library.log_n_scaling",
        "library.log_n_scaling(n_trained={n_trained}).ir",
        {"n_trained": "128"},
    ),
    Call(
        "library.exponential_decay",
        "library.exponential_decay(gamma={gamma}).ir",
        {"gamma": "torch.ones(2)*.5"},
    ),
    Call(
        "library.logarithmic_decay",
        "library.logarithmic_decay(factor={factor}, rate={rate}).ir",
        {"factor": "torch.ones(2)", "rate": "torch.ones(2)"},
    ),
    Call(
        "library.gaussian_decay",
        "library.gaussian_decay(sigma={sigma}).ir",
        {"sigma": "torch.ones(2)"},
    ),
    Call(
        "library.causal",
        "library.causal(offset={offset}).ir",
        {"offset": "0"},
    ),
    Call(
        "library.sliding_window",
        "library.sliding_window(left={left}, right={right}).ir",
        {"left": "4", "right": "0"},
    ),
    Call(
        "library.dilated_window",
        "library.dilated_window(left={left}, right={right}, dilation={dilation}).ir",
        {"left": "4", "right": "0", "dilation": "2"},
    ),
    Call(
        "library.global_window",
        "library.global_window(n_global={n_global}, left={left}, right={right}).ir",
        {"n_global": "2", "left": "3", "right": "3"},
    ),
    Call(
        "library.sink_window",
        "library.sink_window(n_sinks={n_sinks}, left={left}).ir",
        {"n_sinks": "2", "left": "4"},
    ),
    Call(
        "library.prefix_lm",
        "library.prefix_lm(length={length}).ir",
        {"length": "4"},
    ),
    Call(
        "library.strided",
        "library.strided(stride={stride}).ir",
        {"stride": "4"},
    ),
    Call(
        "library.fixed",
        "library.fixed(stride={stride}, n_summary={n_summary}).ir",
        {"stride": "4", "n_summary": "1"},
    ),
    Call(
        "library.power_of_two",
        "library.power_of_two(block={block}, left={left}, n_sinks={n_sinks}).ir",
        {"block": "4", "left": "4", "n_sinks": "1"},
    ),
    Call(
        "library.windows_per_head",
        "library.windows_per_head(left={left}, n_sinks={n_sinks}).ir",
        {"left": "torch.tensor([2,3])", "n_sinks": "torch.tensor([2,3])"},
    ),
    Call(
        "library.documents",
        "library.documents(ids={ids}).ir",
        {"ids": "IDS"},
    ),
    Call(
        "library.shared_prefix",
        "library.shared_prefix(ids={ids}, prefix={prefix}).ir",
        {"ids": "IDS", "prefix": "0"},
    ),
    Call(
        "library.tree",
        "library.tree(parents={parents}, n_context={n_context}, device={device}).ir",
        {"parents": "[-1,0,0,1]", "n_context": "2", "device": "'cpu'"},
    ),
)
