"""Random typed programs over attention indices, as source text.

Programs are valid for coordinates below the limits: every gather is in range, no integer is
divided by zero. Floats meet thresholds only where they are exact, so float32 and float64 agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from attnc.testing.recipes import Layout, Limits, MaskRecipe, ScoreRecipe, TensorRecipe

_N_DOCUMENTS = 6
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_SMALL = (0, 1, 2, 3, 5, 8, 17, 31, 64, 100, 128, 129, 200, -1, -3, -64)
_DIVISORS = (1, 2, 3, 4, 7, 8, 16, 64, 100, 128, -1, -3, -8)
_FACTORS = (2, 3, -1, -2, 7, 64, 65537)


@dataclass
class _Writer:
    """Draws pieces of one program and collects the tensors that they read."""

    draw: st.DrawFn
    limits: Limits
    tensors: list[TensorRecipe] = field(default_factory=list)

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def number(self, choices: tuple[int, ...]) -> int:
        return self.draw(st.sampled_from(choices))

    def tensor(self, recipe: TensorRecipe) -> str:
        """The name of the tensor; equal recipes share one."""
        if recipe not in self.tensors:
            self.tensors.append(recipe)
        return f"t{self.tensors.index(recipe)}"

    def layout(self) -> Layout:
        layouts: tuple[Layout, ...] = ("contiguous", "contiguous", "sliced", "transposed")
        return self.draw(st.sampled_from(layouts))

    def token(self) -> str:
        return self.one_of("q_idx", "kv_idx")

    # Captured tensors

    def documents(self, dtypes: tuple[str, ...] = ("int32", "int64")) -> tuple[str, str]:
        """A tensor of document numbers, and the index into it that comes before the token."""
        per_batch = self.draw(st.booleans())
        shape = (self.limits.n_batch, self.limits.length) if per_batch else (self.limits.length,)
        layouts: tuple[Layout, ...] = ("contiguous", "sliced", "transposed", "expanded")
        layout = self.draw(st.sampled_from(layouts))
        recipe = TensorRecipe(
            shape,
            self.one_of(*dtypes),
            high=self.number((2, _N_DOCUMENTS)),
            contents=self.draw(st.sampled_from(["sorted", "sorted", "random"])),
            layout=layout if per_batch or layout != "expanded" else "contiguous",
            seed=self.draw(st.integers(0, 3)),
        )
        return self.tensor(recipe), "b, " if per_batch else ""

    def same_document(self) -> str:
        name, batch = self.documents(("int32", "int64", "uint8", "int16"))
        return f"({name}[{batch}q_idx] == {name}[{batch}kv_idx])"

    def kept(self) -> str:
        """Whether a key is no padding, per batch."""
        shape = (self.limits.n_batch, self.limits.length)
        name = self.tensor(TensorRecipe(shape, "bool", layout=self.layout()))
        return f"{name}[b, {self.token()}]"

    def per_head(self) -> str:
        """An integer per head or per batch, such as a window or a length."""
        by, size = self.draw(
            st.sampled_from([("h", self.limits.n_heads), ("b", self.limits.n_batch)])
        )
        dtype = self.one_of("int32", "int64")
        recipe = TensorRecipe((size,), dtype, low=1, high=self.limits.length, layout=self.layout())
        return f"{self.tensor(recipe)}[{by}]"

    def gathered(self, depth: int) -> str:
        """An integer loaded from a captured tensor."""
        limits = self.limits
        match self.draw(st.integers(0, 4)):
            case 0:
                return self.per_head()
            case 1:
                name, batch = self.documents()
                return f"{name}[{batch}{self.token()}]"
            case 2:  # nested: the first token of the document of a token
                name, batch = self.documents()
                offsets = TensorRecipe(
                    (_N_DOCUMENTS,), "int64", high=limits.length, contents="sorted"
                )
                return f"{self.tensor(offsets)}[{name}[{batch}{self.token()}]]"
            case 3:  # negative indices count from the end
                values = TensorRecipe((limits.length,), "int32", low=-9, high=9)
                return f"{self.tensor(values)}[q_idx - kv_idx]"
            case _:
                values = TensorRecipe((37,), "int32", low=-40, high=100, layout=self.layout())
                return f"{self.tensor(values)}[{self.integer(depth - 1)} % 37]"

    # Integers; each reads a coordinate, so that torch functions take it

    def integer(self, depth: int) -> str:
        if depth <= 0:
            return self.one_of("q_idx", "kv_idx", "q_idx", "kv_idx", "(q_idx - kv_idx)", "b", "h")
        x = self.integer(depth - 1)
        match self.draw(st.integers(0, 12)):
            case 0 | 1:
                return f"({x} {self.one_of('+', '-')} {self.operand(depth)})"
            case 2:
                return f"({x} * {self.draw(st.sampled_from((*_FACTORS, 'b', 'h', 'q_idx')))})"
            case 3 | 4:
                return f"({x} {self.one_of('//', '%')} {self.number(_DIVISORS)})"
            case 5:
                return f"abs({x})"
            case 6:
                return f"torch.{self.one_of('minimum', 'maximum')}({x}, {self.integer(depth - 1)})"
            case 7:
                low = self.number(_SMALL)
                return f"{x}.clamp(min={low}, max={low + self.number((0, 5, 60))})"
            case 8:
                return f"({x} {self.one_of('&', '|', '^')} {self.operand(depth)})"
            case 9:
                return f"({x} {self.one_of('<<', '>>')} {self.number((0, 1, 2, 5))})"
            case 10:
                return f"torch.where({self.condition(depth - 1)}, {x}, {self.operand(depth)})"
            case 11:
                return f"(-{x})" if self.draw(st.booleans()) else f"(~{x})"
            case _:
                return self.gathered(depth)

    def operand(self, depth: int) -> str:
        if self.draw(st.booleans()):
            return str(self.number(_SMALL))
        return self.integer(depth - 1)

    # Conditions

    def condition(self, depth: int) -> str:
        if depth <= 0:
            return self.known()
        match self.draw(st.integers(0, 9)):
            case 0 | 1 | 2:
                symbol = self.one_of("&", "&", "|", "^")
                return f"({self.condition(depth - 1)} {symbol} {self.condition(depth - 1)})"
            case 3:
                return f"(~{self.condition(depth - 1)})"
            case 4:
                parts = [self.condition(depth - 1) for _ in range(3)]
                return f"torch.where({', '.join(parts)})"
            case 5:
                x, y = self.integer(depth - 1), self.integer(depth - 1)
                return f"({x} / {self.number((2, 4))} {self.one_of(*_COMPARISONS)} {y})"
            case _:
                comparison = self.one_of(*_COMPARISONS)
                return f"({self.integer(depth - 1)} {comparison} {self.operand(depth)})"

    def known(self) -> str:
        """A mask that people use."""
        n = self.number((1, 2, 3, 7, 16, 64, 100, 128, 200))
        match self.draw(st.integers(0, 17)):
            case 0:
                return "(q_idx >= kv_idx)"
            case 1:
                return f"((q_idx >= kv_idx) & (q_idx - kv_idx < {n}))"
            case 2:
                return f"((q_idx >= kv_idx) | (kv_idx < {n}))"
            case 3:
                return self.same_document()
            case 4:
                return f"({self.same_document()} & (q_idx >= kv_idx))"
            case 5:
                return f"(q_idx // {n} == kv_idx // {n})"
            case 6:
                return f"((q_idx - kv_idx) % {n} == 0)"
            case 7:
                return f"((abs(q_idx - kv_idx) <= {n}) | (kv_idx < {n // 4 + 1}) | (q_idx < 2))"
            case 8:
                width = self.number((4, 16))
                rows = f"abs(q_idx // {width} - kv_idx // {width}) <= 2"
                return f"(({rows}) & (abs(q_idx % {width} - kv_idx % {width}) <= 1))"
            case 9:
                return self.kept()
            case 10:
                return f"(kv_idx < {self.per_head()})"
            case 11:
                return f"((q_idx - kv_idx < {self.per_head()}) & (kv_idx <= q_idx))"
            case 12:
                return f"(q_idx + {n} >= kv_idx)"
            case 13:  # bit fields, as of places in Morton order
                bits = self.number((1, 6, 20, 96))
                if self.draw(st.booleans()):
                    return f"((q_idx & {bits}) == (kv_idx & {bits}))"
                return f"((q_idx ^ kv_idx) < {bits})"
            case 14:
                stride, offset = self.number((6, 9, 15)), self.number((0, 1, 3))
                return f"((6 * q_idx + 3 * kv_idx) % {stride} == {offset})"
            case 15:  # three axes
                size = self.number((5, 8))
                axes = (f"// {size * size}", f"// {size} % {size}", f"% {size}")
                near = (f"(abs(q_idx {axis} - kv_idx {axis}) <= 2)" for axis in axes)
                return f"({' & '.join(near)})"
            case 16:  # in an order that a tensor gives
                length = self.limits.length
                order = self.tensor(TensorRecipe((length,), "int64", high=length))
                name, batch = self.documents()
                places = (f"{name}[{batch}{order}[{x}]]" for x in ("q_idx", "kv_idx"))
                return f"({' == '.join(places)})"
            case _:
                return f"(kv_idx < {n})"

    # Scores

    def bias(self) -> str:
        """A float that depends on the place only."""
        limits = self.limits
        dtype = self.one_of("float32", "float32", "bfloat16", "float16")
        match self.draw(st.integers(0, 5)):
            case 0:
                # In bfloat16 PyTorch would round the product; kernels compute in float32.
                slopes = TensorRecipe((limits.n_heads,), "float32", low=-1, high=1)
                return f"{self.tensor(slopes)}[h] * (q_idx - kv_idx) * 0.02"
            case 1:
                shape = (limits.n_heads, 2 * limits.length)
                table = TensorRecipe(shape, dtype, low=-2, high=2, layout=self.layout())
                return f"{self.tensor(table)}[h, q_idx - kv_idx + {limits.length}]"
            case 2:
                shape = (limits.length, limits.length)
                table = TensorRecipe(shape, dtype, low=-2, high=2, layout=self.layout())
                return f"{self.tensor(table)}[q_idx, kv_idx]"
            case 3:
                return "torch.exp(-0.05 * abs(q_idx - kv_idx))"
            case 4:
                return "-torch.log(1 + abs(q_idx - kv_idx))"
            case _:
                return f"{self.integer(1)}.clamp(min=-50, max=50) * 0.03"

    def score(self, depth: int) -> str:
        if depth <= 0:
            return self.one_of("score", "score", "score", "(score * 0.5)", "(-score)")
        x = self.score(depth - 1)
        match self.draw(st.integers(0, 10)):
            case 0 | 1 | 2:
                return f"({x} {self.one_of('+', '-')} {self.bias()})"
            case 3:
                return f"(torch.tanh({x} / 5) * 5)"
            case 4:
                return f"torch.where({self.condition(1)}, {x}, {self.score(depth - 1)})"
            case 5:
                return f"torch.where({self.condition(1)}, {x}, float('-inf'))"
            case 6:
                return f"torch.clamp({x}, min=-4.0, max=6.0)"
            case 7:
                return f"torch.where({x} > 0, {x}, 0.25 * {x})"  # continuous at its threshold
            case 8:
                return f"(torch.clamp({x}, -6.0, 6.0) ** 2 * 0.1)"
            case 9:
                return f"torch.exp(torch.clamp({x}, max=2.0))"
            case _:
                return f"(0.5 * torch.sigmoid({x}) + {self.bias()})"


@st.composite
def masks(draw: st.DrawFn, *, max_depth: int = 3, limits: Limits | None = None) -> MaskRecipe:
    """Recipes of mask_mods: those people use, combinations of them, and random typed programs.

    They may be called with coordinates below ``limits`` (see ``Limits`` for the defaults), which
    are also those of ``shapes()``. ``max_depth`` bounds how deep expressions are nested.
    """
    writer = _Writer(draw, limits or Limits())
    source = writer.condition(draw(st.integers(0, max_depth)))
    return MaskRecipe(source, tuple(writer.tensors))


@st.composite
def score_mods(draw: st.DrawFn, *, max_depth: int = 3, limits: Limits | None = None) -> ScoreRecipe:
    """Recipes of score_mods: biases, softcap, decay, choices, some that give -inf to some pairs.

    Values stay within float32's comfortable range for scores of ordinary size. About one in ten
    never reads the score. ``max_depth`` and ``limits`` as in ``masks``.
    """
    writer = _Writer(draw, limits or Limits())
    if draw(st.integers(0, 9)) == 9:
        source = writer.bias()
    else:
        source = writer.score(draw(st.integers(0, max_depth)))
    return ScoreRecipe(source, tuple(writer.tensors))
