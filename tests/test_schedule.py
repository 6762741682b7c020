"""Values are computed as far outside the inner loop as they can be."""

import torch
from hypothesis import given

from attnc.evaluate import evaluate
from attnc.ir import (
    B_IDX,
    KV_IDX,
    Q_IDX,
    Binary,
    BinaryOp,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    Gather,
    Level,
    Reduce,
    ReduceOp,
    Ref,
    RowIndex,
    Score,
    level_of,
    walk,
)
from attnc.schedule import Schedule, schedule
from attnc.simplify import simplify
from attnc.testing import masks, score_mods
from attnc.trace import SlotTable, trace_mask, trace_score


def inlined(plan: Schedule) -> Expr:
    """The result with every Ref replaced by what it names."""
    values: dict[str, Expr] = {}

    def expand(expr: Expr) -> Expr:
        done: dict[Expr, Expr] = {}
        for node in walk(expr):
            if isinstance(node, Ref):
                done[node] = values[node.name]
            else:
                done[node] = node.rebuild(tuple(done[c] for c in node.children))
        return done[expr]

    for let in plan.lets:
        values[let.name] = expand(let.expr)
    return expand(plan.result)


def test_document_ids_are_loaded_once_per_row_and_column() -> None:
    """`doc[q] == doc[kv]` leaves one comparison in the inner loop."""
    row, column = (Gather(0, (B_IDX, index), DType.INT64) for index in (Q_IDX, KV_IDX))

    plan = schedule(Compare(CompareOp.EQ, row, column), "m")

    assert [let.expr for let in plan.at(Level.ROW)] == [row]
    assert [let.expr for let in plan.at(Level.COLUMN)] == [column]
    assert plan.at(Level.ELEMENT) == ()


def test_a_plain_index_is_not_named() -> None:
    """Leaves cost nothing."""
    assert schedule(Compare(CompareOp.GE, Q_IDX, KV_IDX), "m").lets == ()


def test_shared_values_are_computed_once() -> None:
    """A value with two users gets a name."""
    distance = Binary(BinaryOp.SUB, Q_IDX, KV_IDX)
    near = Compare(CompareOp.LT, distance, Const(5, DType.INT32))
    past = Compare(CompareOp.GE, distance, Const(0, DType.INT32))

    plan = schedule(Binary(BinaryOp.AND, near, past), "m")

    assert [let.expr for let in plan.lets] == [distance]


def test_a_costly_function_of_the_distance_is_computed_once_per_diagonal() -> None:
    """A table read at `q - kv + 5`, however the distance is spelt; a comparison is not worth it."""
    five = Const(5, DType.INT32)
    spelt = Binary(BinaryOp.SUB, Binary(BinaryOp.ADD, Q_IDX, five), KV_IDX)
    bias = Gather(0, (spelt,), DType.FLOAT32)

    plan = schedule(Binary(BinaryOp.ADD, Score(DType.FLOAT32), bias), "s", diagonals=True)

    assert [let.level for let in plan.lets] == [Level.ROW, Level.DIAGONAL]
    assert inlined(plan) is Binary(BinaryOp.ADD, Score(DType.FLOAT32), bias)
    causal = Compare(CompareOp.GE, Q_IDX, KV_IDX)
    assert schedule(causal, "m", diagonals=True).lets == ()


def test_what_depends_on_a_row_variable_stays_inside_its_reduction() -> None:
    """The body of a sum is not hoisted, what it shares with no row variable is."""
    body = Binary(
        BinaryOp.MUL,
        Gather(0, (Q_IDX, RowIndex(0)), DType.FLOAT32),
        Gather(1, (KV_IDX, RowIndex(0)), DType.FLOAT32),
    )
    total = Reduce(ReduceOp.SUM, 0, 8, body)

    plan = schedule(Binary(BinaryOp.ADD, Score(DType.FLOAT32), total), "s")

    assert [let.expr for let in plan.lets] == [total]
    assert plan.lets[0].level is Level.ELEMENT


@given(masks(), score_mods())
def test_schedules_say_what_the_expression_says(mask: object, score: object) -> None:
    """Inlining all names gives the expression back, and each level reads outer ones only."""
    slots = SlotTable()
    exprs = [
        simplify(trace_mask(mask.build(), slots).expr),  # type: ignore[attr-defined]
        simplify(trace_score(score.build(), slots).expr),  # type: ignore[attr-defined]
    ]
    for expr in exprs:
        plan = schedule(expr, "x")
        assert inlined(plan) is expr
        seen: set[str] = set()
        for let in plan.lets:
            names = {node.name for node in walk(let.expr) if isinstance(node, Ref)}
            assert names <= seen
            assert level_of(let.expr) is let.level
            seen.add(let.name)


@given(masks(), score_mods())
def test_diagonals_hold_functions_of_the_distance(mask: object, score: object) -> None:
    """Names at DIAGONAL read no other ELEMENT, and stand for the same wherever q - kv is the same."""
    slots = SlotTable()
    exprs = [
        simplify(trace_mask(mask.build(), slots).expr),  # type: ignore[attr-defined]
        simplify(trace_score(score.build(), slots).expr),  # type: ignore[attr-defined]
    ]
    for expr in exprs:
        plan = schedule(expr, "x", diagonals=True)
        assert inlined(plan) is expr
        for let in plan.at(Level.DIAGONAL):
            read = {node.level for node in walk(let.expr) if isinstance(node, Ref)}
            assert Level.ELEMENT not in read
            whole = inlined(Schedule(plan.lets, Ref(let.name, let.expr.dtype, let.level)))
            points = [
                evaluate(
                    whole,
                    b=0,
                    h=1,
                    q_idx=torch.tensor(40 + shift),
                    kv_idx=torch.tensor(9 + shift),
                    tensors=slots.tensors,
                )
                for shift in (0, 1, 17)
            ]
            for point in points:
                torch.testing.assert_close(point, points[0], rtol=0, atol=0, equal_nan=True)
