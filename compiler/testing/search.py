"""Where ``check`` looks: random inputs, and smaller ones that show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from attnc.testing.recipes import InputsRecipe, Layout, Limits, Shape

_LAYOUTS: tuple[Layout, ...] = ("contiguous", "transposed", "sliced", "expanded")
#: About the sizes of tiles.
_EDGES = (63, 64, 65, 127, 128, 129, 192, 200, 257)
#: Kernels for at most so many queries are others.
FEW_QUERIES = 16
#: (head_dim, value_dim). Each makes kernels of its own: one that fills vectors, one that does not.
USUAL_SIZES, ODD_SIZES = (16, 16), (40, 24)
_MOST_STEPS = 400


def random_inputs(
    limits: Limits, dtypes: Sequence[str], examples: int, seed: int | None
) -> Iterator[InputsRecipe]:
    """So many inputs, the simplest first; those of a seed are the same each time.

    Many or few queries and sizes of heads take turns, so that a few inputs have them all.
    """
    draw = Random(f"attnc {seed}")
    shortest = min(1, limits.length)
    for number in range(examples):
        if number == 0:
            yield InputsRecipe(Shape(n_queries=shortest, n_keys=shortest), dtype=dtypes[0])
            continue
        has_few = number % 5 == 0
        is_odd = number % 2 == 0 and not has_few
        n_batch = draw.randint(1, limits.n_batch)
        n_kv_heads = draw.choice([n for n in (1, 2) if n <= limits.n_heads])
        group = draw.choice([n for n in (1, 2) if n * n_kv_heads <= limits.n_heads])
        head_dim, value_dim = ODD_SIZES if is_odd else USUAL_SIZES
        longest = min(FEW_QUERIES, limits.length) if has_few else limits.length
        yield InputsRecipe(
            Shape(
                n_batch=n_batch,
                n_heads=n_kv_heads * group,
                n_queries=_length(draw, longest),
                n_keys=_length(draw, limits.length),
                head_dim=head_dim,
                value_dim=value_dim,
                n_kv_heads=n_kv_heads,
                n_kv_batch=draw.choice((n_batch, 1)),
            ),
            dtype=draw.choice(list(dtypes)),
            layout=draw.choice(_LAYOUTS),
            magnitude=draw.choice((1.0, 1.0, 30.0)),
            seed=draw.randrange(8),
        )


def _length(draw: Random, longest: int) -> int:
    if draw.random() < 0.06:
        return 0
    edges = [*(n for n in _EDGES if n < longest), longest]
    if draw.random() < 0.5:
        return draw.choice(edges)
    return draw.randint(min(1, longest), longest)


def smallest(
    recipe: InputsRecipe,
    shows_it: Callable[[InputsRecipe], bool],
    dtypes: Sequence[str],
) -> InputsRecipe:
    """An input that is not simpler in any one respect without losing what ``shows_it`` tells."""
    seen = {recipe}
    while True:
        for candidate in _simpler(recipe, dtypes):
            if candidate in seen:
                continue
            if len(seen) > _MOST_STEPS:
                return recipe
            seen.add(candidate)
            if shows_it(candidate):
                recipe = candidate
                break
        else:
            return recipe


def _simpler(recipe: InputsRecipe, dtypes: Sequence[str]) -> Iterator[InputsRecipe]:
    """Inputs that are simpler in one respect, the most at first."""
    shape = recipe.shape
    for n_queries, n_keys in ((1, 1), (1, shape.n_keys), (shape.n_queries, 1)):
        if n_queries <= shape.n_queries and n_keys <= shape.n_keys:
            yield replace(recipe, shape=replace(shape, n_queries=n_queries, n_keys=n_keys))
    for heads in ((1, 1), (2, 2), (2, 1)):
        if heads < (shape.n_heads, shape.n_kv_heads):
            less = replace(shape, n_heads=heads[0], n_kv_heads=heads[1])
            yield replace(recipe, shape=less)
    for n_batch, n_kv_batch in ((1, 1), (shape.n_batch, shape.n_batch)):
        if (n_batch, n_kv_batch) != (shape.n_batch, shape.n_kv_batch):
            yield replace(recipe, shape=replace(shape, n_batch=n_batch, n_kv_batch=n_kv_batch))
    for length in _shorter(shape.n_queries):
        yield replace(recipe, shape=replace(shape, n_queries=length))
    for length in _shorter(shape.n_keys):
        yield replace(recipe, shape=replace(shape, n_keys=length))
    if (shape.head_dim, shape.value_dim) == ODD_SIZES:
        head_dim, value_dim = USUAL_SIZES
        yield replace(recipe, shape=replace(shape, head_dim=head_dim, value_dim=value_dim))
    if recipe.dtype != dtypes[0]:
        yield replace(recipe, dtype=dtypes[0])
    plain = InputsRecipe(shape)
    for name in ("layout", "magnitude", "seed"):
        if getattr(recipe, name) != getattr(plain, name):
            yield replace(recipe, **{name: getattr(plain, name)})


def _shorter(length: int) -> Iterator[int]:
    """Half as long, then less and less is taken away."""
    taken = length // 2
    while taken:
        yield length - taken
        taken //= 2
