"""Random shapes and inputs of attention."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from attnc.testing.programs import Limits
from attnc.testing.recipes import InputsRecipe, Layout, Shape

_LENGTHS = (16, 1, 2, 33, 64, 127, 128, 129, 200, 257, 0)
_SIZES = (16, 32, 64, 8, 80, 1, 3)
_LAYOUTS: tuple[Layout, ...] = ("contiguous", "transposed", "sliced", "expanded")


@st.composite
def shapes(draw: st.DrawFn, *, limits: Limits | None = None, min_length: int = 0) -> Shape:
    """Small shapes, inconvenient ones among them.

    Lengths 0, 1, 127, 129, head sizes 1, 3, 80, values of another size than keys, grouped
    queries, one batch of keys for all.
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
    """Recipes of q, k, v of ``shape`` (any of ``shapes()`` if None)."""
    return InputsRecipe(
        shape=draw(shapes()) if shape is None else shape,
        dtype=draw(st.sampled_from(list(dtypes))),
        layout=draw(st.sampled_from(list(layouts))),
        magnitude=draw(st.sampled_from(list(magnitudes))),
        seed=draw(st.integers(0, 7)),
    )


@st.composite
def small_inputs(
    draw: st.DrawFn, limits: Limits, dtypes: Sequence[str] = ("float32",)
) -> InputsRecipe:
    """As ``inputs()``, but shrinking to lengths of a few tokens, and with few head sizes: each
    makes kernels of its own."""
    n_batch = draw(st.integers(1, limits.n_batch))
    groups = [g for g in (1, 2) if g <= limits.n_heads]
    n_kv_heads = draw(st.integers(1, max(1, min(2, limits.n_heads // groups[-1]))))
    edges = [n for n in (0, 1, 63, 64, 65, 127, 128, 129, 200, 257) if n <= limits.length]
    length = st.one_of(st.integers(min(1, limits.length), limits.length), st.sampled_from(edges))
    n_queries = draw(length)
    # Kernels for few queries are others.
    head_dim = draw(st.sampled_from((16, 16, 40))) if n_queries > 16 else 16
    shape = Shape(
        n_batch=n_batch,
        n_heads=n_kv_heads * draw(st.sampled_from(groups)),
        n_queries=n_queries,
        n_keys=draw(length),
        head_dim=head_dim,
        value_dim=head_dim,
        n_kv_heads=n_kv_heads,
        n_kv_batch=draw(st.sampled_from((n_batch, 1))),
    )
    return draw(inputs(shape, dtypes=dtypes))
