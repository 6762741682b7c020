"""Tracing: what a mod cannot do, and the text form of what it does."""

from __future__ import annotations

from attnc.errors.base import AttncError


class TraceError(AttncError):
    """A mask_mod or score_mod does something a kernel cannot do."""


class ModCallError(TraceError, TypeError):
    template = (
        "{name} cannot be called as a {kind}, that is as {call}: {reason}. Take these parameters "
        "by position; give further ones a default, or bind them with functools.partial."
    )


class ModReturnError(TraceError, TypeError, AssertionError):  # the latter as PyTorch
    template = "{name} returned {got}, but a {kind} must return {wanted}. {instead}"


class BranchOnTracedValueError(TraceError, TypeError):
    template = (
        "{location}: `{source}` needs the value of {expr}, which is known only inside the kernel. "
        "Use torch.where(condition, a, b) for a choice, torch.minimum and torch.maximum for min "
        "and max, (a <= x) & (x < b) for a <= x < b, and & | ~ for and, or, not."
    )


class ConcreteValueError(TraceError, TypeError):
    template = (
        "{location}: `{source}` asks for the value of {expr} as {wanted}, but it is known only "
        "inside the kernel. {instead}"
    )


class UnsupportedOperationError(TraceError, NotImplementedError):
    template = (
        "{location}: `{source}` uses {operation}, which has no meaning in a kernel. {instead}"
    )


class InPlaceOperationError(TraceError, RuntimeError):  # torch's += swallows a TypeError
    template = (
        "{location}: `{source}` changes a tensor in place ({operation}). A mask_mod or score_mod "
        "is evaluated for many positions in any order, so it must not write. Compute a new value "
        "and return it."
    )


class DataDependentShapeError(TraceError, TypeError):
    template = (
        "{location}: `{source}` makes a tensor whose size depends on traced values ({operation}). "
        "Sizes must be known when the kernel is built. Use torch.where(condition, a, b) to choose "
        "between values."
    )


class MissingAttributeError(TraceError, AttributeError):
    template = "an index or a score has no attribute {name!r}; nor has a tensor."


class TooManyIndicesError(TraceError, IndexError):
    template = (
        "{location}: `{source}` gives {n_given} indices to a tensor of {n_dims} dimensions. Give one "
        "for each at the most."
    )


class TooLongModError(TraceError, ValueError):
    template = (
        "{name} computes {n_nodes} different values for each pair, but a {kind} may have {most}: a "
        "kernel of so many would take minutes to compile. Put the numbers of a Python loop into a "
        "tensor and index it, as in `table[q_idx, kv_idx]` or `ids[q_idx] == ids[kv_idx]`."
    )


class RowViewError(TraceError, ValueError):
    template = (
        "{location}: `{source}` makes a view of shape {shape} of a row of shape {row_shape}, but a "
        "kernel reads rows as they are: their views may only add or drop dimensions of size 1. "
        "Make the view of the captured tensor, before it is indexed, or index the row as it is."
    )


class UnsupportedDTypeError(TraceError, TypeError):
    template = (
        "{location}: `{source}` reads a tensor of {stored}, which a kernel cannot read. {instead}"
    )


class GraphTextError(AttncError, ValueError):
    template = (
        "torch.ops.attnc.attention: the text of the {role} says `{text}`, but {problem}. Call "
        "attnc.attention with a function, which writes its text itself."
    )


class GraphArgumentError(AttncError, ValueError):
    template = (
        "torch.ops.attnc.{operator}: {argument} {problem}. Call attnc.attention, which writes "
        "the arguments itself."
    )


class ExpressionSyntaxError(AttncError, ValueError):
    template = (
        "`{text}` is not an expression in attnc's text form: {problem}. Write what format_program "
        "writes, such as `q_idx >= kv_idx`."
    )
