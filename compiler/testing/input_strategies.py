"""Random shapes and inputs of attention."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from attnc.testing.recipes import InputsRecipe, Layout, Limits, Shape

_LENGTHS = (16, 1, 2, 33, 64, 127, 128, 129, 200, 257, 0)
_SIZES = (16, 32, 64, 8, 80, 1, 3)
_LAYOUTS: tuple[Layout, ...] = ("contiguous", "transposed", "sliced", "expanded")


@st.composite
def shapes(draw: st.DrawFn, *, limits: Limits | None = None, min_length: int = 0) -> Shape:
    """Small shapes, inconvenient ones among them.

    Lengths 0, 1, 127, 129, head sizes 1, 3, 80, values of another size than keys, grouped
    queries, one batch of keys for all; ``min_length`` tokens at least, all below ``limits``.
    """
    bounds = limits or Limits()
    lengths = [n for n in _LENGTHS if min_length <= n <= bounds.length] or [min_length]
    n_batch = draw(st.integers(1, bounds.n_batch))
    n_kv_heads = draw(st.integers(1, min(2, bounds.n_heads)))
    groups = [n for n in (1, 2, 3) if n * n_kv_heads <= bounds.n_heads]
    head_dim = draw(st.sampled_from(_SIZES))
    return Shape(
        n_batch=n_batch,
        n_heads=n_kv_heads * draw(st.sampled_from(groups)),
        n_queries=draw(st.sampled_from(lengths)),
        n_keys=draw(st.sampled_from(lengths)),
        head_dim=head_dim,
        value_dim=draw(st.sampled_from((head_dim, head_dim, *_SIZES))),
        n_kv_heads=n_kv_heads,
        n_kv_batch=draw(st.sampled_from((n_batch, n_batch, 1))),
    )


@st.composite
def inputs(
    draw: st.DrawFn,
    shape: Shape | None = None,
    *,
    dtypes: Sequence[str] = ("float32",),
    layouts: Sequence[Layout] = _LAYOUTS,
    magnitudes: Sequence[float] = (1.0, 1.0, 1.0, 30.0),
) -> InputsRecipe:
    """Recipes of q, k, v.

    Args:
        shape: Their sizes; any of ``shapes()`` if None.
        dtypes, layouts, magnitudes: What is drawn from for these fields of ``InputsRecipe``.
    """
    return InputsRecipe(
        shape=draw(shapes()) if shape is None else shape,
        dtype=draw(st.sampled_from(list(dtypes))),
        layout=draw(st.sampled_from(list(layouts))),
        magnitude=draw(st.sampled_from(list(magnitudes))),
        seed=draw(st.integers(0, 7)),
    )
