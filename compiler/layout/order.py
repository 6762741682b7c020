"""Orders of tokens, and what a mask, a score and tensors become in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from attnc import checks
from attnc.errors import LayoutArgumentError
from attnc.errors.base import described
from attnc.mods import Mod, require_kind
from attnc.storage import require_memory


@dataclass(frozen=True, eq=False)
class Layout:
    """An order of tokens for attention: which token stands at each place.

    ``attnc.attention(q, k, v, layout=...)`` applies one; outputs are in the tokens' own order.

    Attributes:
        name: For people.
        n_tokens: Tokens that are put in order, places 0 to n_tokens - 1.
    """

    name: str
    n_tokens: int

    def token_at(self, place: Any) -> Any:
        """Number of the token at a place: of an int32 tensor, or of an index inside a mod."""
        raise NotImplementedError

    @property
    def is_own(self) -> bool:
        """Whether every token is known to stay at its place."""
        return False

    @property
    def n_steps(self) -> int:
        """About how many operations ``token_at`` takes: the less, the simpler masks become."""
        return 1

    @cached_property
    def order(self) -> torch.Tensor:
        """(n_tokens,) int64: the token at each place."""
        tokens: torch.Tensor = self.token_at(torch.arange(self.n_tokens, dtype=torch.int32))
        return tokens.long()

    @cached_property
    def places(self) -> torch.Tensor:
        """(n_tokens,) int64: the place of each token."""
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(self.n_tokens)
        return places

    def mask(self, mask_mod: Mod) -> Mod:
        """``mask_mod`` of tokens as a mask_mod of places."""
        require_kind(mask_mod, "mask_mod", "the argument of Layout.mask")
        mask_of_tokens = getattr(mask_mod, "fn", mask_mod)

        def mask_of_places(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return mask_of_tokens(b, h, self.token_at(q_idx), self.token_at(kv_idx))

        return mask_of_places

    def score(self, score_mod: Mod) -> Mod:
        """``score_mod`` of tokens as a score_mod of places."""
        require_kind(score_mod, "score_mod", "the argument of Layout.score")
        score_of_tokens = getattr(score_mod, "fn", score_mod)

        def score_of_places(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return score_of_tokens(score, b, h, self.token_at(q_idx), self.token_at(kv_idx))

        return score_of_places

    def arrange(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` of tokens as the same of places; gradients flow.

        Args:
            x: (B, H, n_tokens, ...), any dtype.

        Raises:
            LayoutArgumentError: It is no such tensor.
        """
        self._require_tokens(x)
        order, places = self._on(x.device)
        return _reordered(x, order, places)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` of places as the same of tokens: the inverse of ``arrange``, with its errors."""
        self._require_tokens(x)
        order, places = self._on(x.device)
        return _reordered(x, places, order)

    def _require_tokens(self, x: Any) -> None:
        is_strided = isinstance(x, torch.Tensor) and x.layout is torch.strided and not x.is_nested
        if not is_strided or x.dim() < 3 or x.shape[2] != self.n_tokens:
            problem = f"give a tensor (B, H, {self.n_tokens}, ...), as the layout has tokens"
            raise LayoutArgumentError(argument="x", value=shown(x), problem=problem)
        require_memory(x=x)

    def _on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return self.order.to(device), self.places.to(device)


@dataclass(frozen=True, eq=False)
class StridedLayout(Layout):
    """An order that digits of the place give: masks are rewritten as arithmetic on them.

    Attributes:
        modes: (extent, stride) of each digit, slowest first; the token is the sum of digit *
            stride.
    """

    modes: tuple[tuple[int, int], ...] = ()

    def token_at(self, place: Any) -> Any:
        token: Any = 0
        below = self.n_tokens
        for number, (extent, stride) in enumerate(self.modes):
            below //= extent
            digit = place if below == 1 else place // below
            if number:
                digit = digit % extent
            token = token + (digit if stride == 1 else digit * stride)
        return token

    @property
    def is_own(self) -> bool:
        return self.modes == ((self.n_tokens, 1),)

    @property
    def n_steps(self) -> int:
        return len(self.modes)


@dataclass(frozen=True, eq=False)
class ShiftedLayout(Layout):
    """The order of another layout on a grid that is rolled along its axes.

    Attributes:
        inner: The order before rolling.
        grid: (size, shift) of each axis, slowest first: the cell ``shift`` comes first.
    """

    inner: StridedLayout
    grid: tuple[tuple[int, int], ...]

    def token_at(self, place: Any) -> Any:
        cell = self.inner.token_at(place)
        token: Any = 0
        below = self.n_tokens
        for number, (size, shift) in enumerate(self.grid):
            below //= size
            coordinate = cell if below == 1 else cell // below
            if number:
                coordinate = coordinate % size
            if shift:
                coordinate = (coordinate + shift) % size
            token = token + (coordinate if below == 1 else coordinate * below)
        return token

    @property
    def n_steps(self) -> int:
        return self.inner.n_steps + sum(2 for _, shift in self.grid if shift)


@dataclass(frozen=True, eq=False)
class TableLayout(Layout):
    """Any order, from a table that masks then read.

    Attributes:
        tokens: (n_tokens,) int32: the token at each place.
    """

    tokens: torch.Tensor

    def token_at(self, place: Any) -> Any:
        return self.tokens[place]


def strided(name: str, modes: Sequence[tuple[int, int]]) -> StridedLayout:
    """The layout of these digits; those that run on in one stride are joined."""
    joined: list[tuple[int, int]] = []
    for extent, stride in modes:
        if extent == 1:
            continue
        if joined and joined[-1][1] == extent * stride:
            joined[-1] = (joined[-1][0] * extent, stride)
        else:
            joined.append((extent, stride))
    n_tokens = math.prod(extent for extent, _ in modes)
    return StridedLayout(name, n_tokens, tuple(joined) or ((1, 1),))


def from_order(order: torch.Tensor, name: str = "given order") -> TableLayout:
    """The layout that puts the token ``order[i]`` at place i.

    Args:
        order: (n,), integers: each of 0 to n - 1 once.
        name: For people.

    Raises:
        LayoutArgumentError: It is no such tensor.
    """
    is_order = (
        isinstance(order, torch.Tensor)
        and checks.is_readable(order)
        and order.dim() == 1
        and order.dtype in checks.INTEGERS
        and torch.equal(order.sort().values.long().cpu(), torch.arange(len(order)))
    )
    if not is_order:
        problem = "it must have each of the numbers 0 to n - 1 once"
        raise LayoutArgumentError(argument="order", value=shown(order), problem=problem)
    if not isinstance(name, str):
        raise LayoutArgumentError(argument="name", value=shown(name), problem="give a text")
    return TableLayout(name, len(order), order.to(torch.int32))


def shown(value: Any) -> str:
    """What a message says of a value that is given for an argument."""
    if isinstance(value, torch.Tensor) and not value.is_nested:
        return f"of shape {list(value.shape)}"
    return repr(described(value))


class _Reordered(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, order: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4 or not x.is_contiguous() or x.numel() == 0:
            return x.index_select(2, order)
        n_batch, n_heads, n, width = x.shape
        first = n * torch.arange(n_batch * n_heads, device=x.device)
        rows = (first[:, None] + order).view(-1)
        return x.view(-1, width).index_select(0, rows).view(x.shape)  # a third of the time

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        order, places = ctx.saved_tensors
        return _reordered(grads[0], places, order), None, None


def _reordered(x: torch.Tensor, order: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """``x`` with dimension 2 in another order. Its gradient is gathered, not added up."""
    if torch.compiler.is_compiling():
        return x.index_select(2, order)  # graphs have their own ways to add up
    apply: Any = _Reordered.apply
    reordered: torch.Tensor = apply(x, order, places)
    return reordered
