"""From a Python function to an expression: the function is run once on symbols.

No source is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch

from attnc.errors import AttncError, TooLongModError
from attnc.ir import B_IDX, H_IDX, KV_IDX, Q_IDX, Const, DType, Expr, Leaf, Score, walk
from attnc.trace.context import Context
from attnc.trace.location import Location, user_location
from attnc.trace.memory import recall, recipe_of, remember
from attnc.trace.promotion import convert
from attnc.trace.refusals import (
    bad_return,
    foreign_operand,
    name_of,
    numpy_function,
    signature_error,
)
from attnc.trace.slots import BOOL, FLOAT32, INT32, SlotTable
from attnc.trace.symbols import Symbol
from attnc.trace.tracer import FUNCTION_NAMES, Tracer

#: Of one mod: compilers take some 4 ms for each.
MOST_NODES = 8192
# What was counted, while it lives: a mod is traced at each call.
_short: WeakSet[Expr] = WeakSet()

_NO_LOCATIONS: Mapping[Expr, Location] = MappingProxyType({})


class Traced(NamedTuple):
    """What a mod computes, and the line that first made each node where that was asked for."""

    expr: Expr
    locations: Mapping[Expr, Location]


def trace_mask(
    fn: Callable[..., Any],
    slots: SlotTable,
    *,
    with_locations: bool = False,
    tracer: Tracer | None = None,
) -> Traced:
    """The bool expression that ``fn(b, h, q_idx, kv_idx)`` computes.

    Floats that no tensor gives a width are float32. Captured tensors are added to ``slots``.
    ``tracer`` runs it in place of the usual one.

    Raises:
        TraceError: ``fn`` does something a kernel cannot do; the subclass tells what.
        UnsupportedDTypeError: a captured tensor cannot be read by kernels.
        Exception: whatever ``fn`` itself raises.
    """
    recipe = None
    if not (with_locations or tracer or torch.compiler.is_dynamo_compiling()):
        recipe = recipe_of(fn, slots, None, FUNCTION_NAMES)
        if recipe is not None and (expr := recall(recipe, slots)) is not None:
            return Traced(expr, _NO_LOCATIONS)
    context = tracer or Tracer(slots, FLOAT32)
    result, locations = _run(context, fn, "mask_mod", (), with_locations)
    if isinstance(result, (bool, np.bool_)):
        return Traced(Const(bool(result), BOOL), locations)
    if isinstance(result, Symbol) and result.kind is BOOL:
        if recipe is not None and context.takes_elements_only:
            remember(recipe, result.expr, slots)
        return Traced(result.expr, locations)
    raise bad_return(fn, "mask_mod", result)


def trace_score(
    fn: Callable[..., Any],
    slots: SlotTable,
    float_dtype: DType = FLOAT32,
    *,
    with_locations: bool = False,
    tracer: Tracer | None = None,
) -> Traced:
    """The expression that ``fn(score, b, h, q_idx, kv_idx)`` computes, as ``float_dtype``.

    Raises:
        TraceError: as for ``trace_mask``.
    """
    recipe = None
    if not (with_locations or tracer or torch.compiler.is_dynamo_compiling()):
        recipe = recipe_of(fn, slots, float_dtype, FUNCTION_NAMES)
        if recipe is not None and (expr := recall(recipe, slots)) is not None:
            return Traced(expr, _NO_LOCATIONS)
    context = tracer or Tracer(slots, float_dtype)
    score = context.symbol(context, Score(float_dtype), float_dtype)
    result, locations = _run(context, fn, "score_mod", (score,), with_locations)
    if isinstance(result, (bool, int, float, Symbol)):
        expr = convert(context, result, float_dtype)
        if recipe is not None and context.takes_elements_only:
            remember(recipe, expr, slots)
        return Traced(expr, locations)
    raise bad_return(fn, "score_mod", result)


def _run(
    context: Tracer,
    fn: Callable[..., Any],
    kind: str,
    first: tuple[Symbol, ...],
    with_locations: bool,
) -> tuple[Any, Mapping[Expr, Location]]:
    """What ``fn`` returns on symbols, tensors of it as symbols or rows."""
    locations = _NO_LOCATIONS
    if with_locations:
        recorded: dict[Expr, Location] = {}
        locations = recorded
        context.symbol = _recording_symbol(recorded)
    symbol = context.symbol
    args = (
        *first,
        symbol(context, B_IDX, INT32),
        symbol(context, H_IDX, INT32),
        symbol(context, Q_IDX, INT32),
        symbol(context, KV_IDX, INT32),
    )
    try:
        result = context.run(fn, args)
    except TypeError as error:
        if "__array_ufunc__" in str(error):  # np.exp(q_idx): NumPy itself refuses
            raise numpy_function(error) from error
        if not isinstance(error, AttncError) and ("Symbol" in str(error) or "'Row'" in str(error)):
            raise foreign_operand(error) from error
        raise signature_error(fn, kind, args, error) from error
    value = result if type(result) is Symbol else context.value(result)
    if isinstance(value, Symbol) and not torch.compiler.is_dynamo_compiling():
        _require_short(fn, kind, value.expr)
    return value, locations


def _require_short(fn: Any, kind: str, expr: Expr) -> None:
    if expr in _short:
        return
    n_nodes = sum(1 for _ in walk(expr))
    if n_nodes > MOST_NODES:
        raise TooLongModError(name=name_of(fn), n_nodes=n_nodes, kind=kind, most=MOST_NODES)
    _short.add(expr)


def _recording_symbol(locations: dict[Expr, Location]) -> Callable[[Context, Expr, DType], Symbol]:
    def symbol(context: Context, expr: Expr, kind: DType) -> Symbol:
        if not isinstance(expr, Leaf) and expr not in locations:
            location = user_location()
            stack = [expr]
            while stack:
                node = stack.pop()
                if isinstance(node, Leaf) or node in locations:
                    continue
                locations[node] = location
                stack.extend(node.children)
        return Symbol(context, expr, kind)

    return symbol
