"""How the elements of a captured tensor lie that a row of pairs (one q_idx, adjacent kv_idx) reads.

Where every index is a multiple of kv_idx plus what does not depend on it, they are a *run*: the
same number of elements apart. A kernel then finds the first one and reads on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from attnc.ir import (
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Cast,
    Const,
    DType,
    Expr,
    Index,
    IndexName,
    Level,
    Ref,
    Score,
    Unary,
    UnaryOp,
    level_of,
    walk,
)


def run_of(indices: Sequence[Expr]) -> tuple[int, ...] | None:
    """Factors of kv_idx in the indices of a run; None where the elements lie otherwise.

    Indices that stay in range at both ends of a row of pairs then have, in between, just the
    values that the factors say: none has wrapped around there.
    """
    slopes = _slopes_in_keys(indices)
    found = []
    for index in indices:
        # int32 that is widened last has wrapped around or not when it is compared with the size.
        inner = index.x if isinstance(index, Cast) and index.x.dtype is DType.INT32 else index
        slope = slopes[index] if slopes[index] is not None else slopes[inner]
        if slope is None or abs(slope) >= 2**31:
            return None
        found.append(slope)
    return tuple(found) if any(found) else None


def tile_of(indices: Sequence[Expr]) -> tuple[int, int] | None:
    """The dimensions of q_idx and kv_idx, each an index itself, where all others are uniform.

    Where the elements of a row of pairs lie far apart, those of a column may follow each other.
    """
    places = [[n for n, index in enumerate(indices) if index is x] for x in (Q_IDX, KV_IDX)]
    if [len(found) for found in places] != [1, 1]:
        return None
    (q_at,), (kv_at,) = places
    others = [index for n, index in enumerate(indices) if n not in (q_at, kv_at)]
    is_tile = all(level_of(index) is Level.UNIFORM for index in others)
    return (q_at, kv_at) if is_tile else None


def _slopes_in_keys(roots: Sequence[Expr]) -> dict[Expr, int | None]:
    """Factors of kv_idx in the nodes that are sums of multiples of it and of what ignores it,
    exact modulo 2 to the width of their dtype."""
    slopes: dict[Expr, int | None] = {}
    for node in walk(*roots):
        slopes[node] = _slope(node, [slopes[child] for child in node.children])
    return slopes


def _slope(node: Expr, known: Sequence[int | None]) -> int | None:
    match node:
        case Index(IndexName.KV):
            return 1
        case Score() | Ref(_, _, Level.COLUMN | Level.DIAGONAL | Level.ELEMENT):
            return None
    if not any(slope != 0 for slope in known):
        return 0
    if not node.dtype.is_int or None in known:
        return None
    first, *rest = (slope for slope in known if slope is not None)
    match node:
        case Unary(UnaryOp.NEG):
            return -first
        case Binary(BinaryOp.ADD):
            return first + rest[0]
        case Binary(BinaryOp.SUB):
            return first - rest[0]
        case Binary(BinaryOp.MUL, _, Const(factor)):
            return first * int(factor)
        case Cast(Index(), DType.INT64):
            return first
        case _:
            return None
