"""Values in place of arguments: strange ones, usual mistakes, hopeless mods."""

from __future__ import annotations

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
