"""From what users pass, masks and lengths, to expressions over one table of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnc import checks
from attnc.block_mask import BlockMask
from attnc.block_mask.fixed import listed_mod
from attnc.block_mask.mask import is_sliced
from attnc.decorator import Kernel
from attnc.errors import ProofArgumentError, SlicedMaskModError
from attnc.intervals import Facts
from attnc.ir import DType, Expr, IndexName
from attnc.mods import mod_kind, require_kind
from attnc.printer import format_expr
from attnc.prove.blame import deciding_term
from attnc.prove.domain import Domain
from attnc.prove.everywhere import LONGEST
from attnc.trace import Location, SlotTable, trace_mask, trace_score

#: A mask_mod, Kernel or BlockMask; where a mod is asked for, also a score_mod.
Mask = Callable[..., Any] | BlockMask

_MAX_TEXT = 100


@dataclass(frozen=True)
class Lengths:
    """The sizes that the user gave; those left out are taken from block masks."""

    B: int | None
    H: int | None
    Q_LEN: int | None
    KV_LEN: int | None
    budget: int


@dataclass
class Question:
    """Masks traced into one table of tensors, and the pairs they are asked about."""

    function: str
    lengths: Lengths
    slots: SlotTable = field(default_factory=SlotTable)
    locations: dict[Expr, Location] = field(default_factory=dict)
    block_masks: list[BlockMask] = field(default_factory=list)

    def mask(self, mask: Mask, role: str = "mask") -> Expr:
        """The predicate of a mask_mod or BlockMask, or of the mask that a Kernel applies.

        Raises:
            TraceError: The function does something a kernel cannot do.
            NotAModError, WrongModKindError: It is no mask.
            SlicedMaskModError: It was cut out of another block mask.
        """
        while isinstance(mask, Kernel) and mask.mask is not None:
            mask = mask.mask
        if isinstance(mask, BlockMask):
            return self._block_mask(mask)
        require_kind(mask, "mask_mod", role)
        return self._traced(mask)

    def mods(self, mod: Mask) -> list[tuple[Expr, Expr | None]]:
        """The expressions that ``mod`` computes, each with the mask that says at which pairs.

        Those of a Kernel are its mask, everywhere, and its score_mod, where the mask is true.
        """
        if isinstance(mod, Kernel):
            mask = None if mod.mask is None else self.mask(mod.mask)
            found: list[tuple[Expr, Expr | None]] = [] if mask is None else [(mask, None)]
            if mod.score is not None:
                found.append((self._score(mod.score), mask))
            return found
        if isinstance(mod, BlockMask) or not callable(mod) or mod_kind(mod) == "mask_mod":
            return [(self.mask(mod, "mod"), None)]
        return [(self._score(mod), None)]

    def _score(self, score: Callable[..., Any]) -> Expr:
        traced = trace_score(score, self.slots, with_locations=True)
        self._remember(traced.locations)
        return traced.expr

    def _block_mask(self, block_mask: BlockMask) -> Expr:
        if is_sliced(block_mask):
            raise SlicedMaskModError()
        self.block_masks.append(block_mask)
        if block_mask.frozen_mask is not None:
            return block_mask.frozen_mask
        device = block_mask.kv_num_blocks.device
        return self._traced(listed_mod(block_mask.table, block_mask.mask_mod, device))

    def _traced(self, mask: Callable[..., Any]) -> Expr:
        traced = trace_mask(mask, self.slots, with_locations=True)
        self._remember(traced.locations)
        return traced.expr

    def _remember(self, locations: Mapping[Expr, Location]) -> None:
        for expr, location in locations.items():
            self.locations.setdefault(expr, location)

    def domain(self) -> Domain:
        """All pairs asked about.

        Raises:
            ProofArgumentError: A length is missing, wrong, or not that of a block mask.
        """
        given = self.lengths
        lengths = [mask.seq_lengths for mask in self.block_masks]
        shapes = [(1, 1, *mask.batch_shape) for mask in self.block_masks]
        n_queries = self._size("Q_LEN", given.Q_LEN, [queries for queries, _ in lengths])
        n_keys = self._size("KV_LEN", given.KV_LEN, [keys for _, keys in lengths], n_queries)
        batches = [shape[-2] for shape in shapes if shape[-2] > 1]
        heads = [shape[-1] for shape in shapes if shape[-1] > 1]
        n_batch = self._size("B", given.B, batches, 1)
        n_heads = self._size("H", given.H, heads, 1)
        known = {IndexName.B: (given.B, batches), IndexName.H: (given.H, heads)}
        assumed = frozenset(
            index for index, (size, sizes) in known.items() if size is None and not sizes
        )
        budget = checks.whole_number(given.budget)
        if budget is None or budget < 0:
            problem = "give a number of pairs" if budget is None else "it must not be negative"
            raise self.wrong("budget", given.budget, problem)
        facts = Facts(tuple(self.slots.tensors))
        is_fixed = bool(self.block_masks)
        return Domain(n_batch, n_heads, n_queries, n_keys, facts, is_fixed, assumed)

    def _size(
        self, name: str, given: int | None, known: list[int], default: int | None = None
    ) -> int:
        """The size given, or that of the block masks, or the default."""
        if given is not None and checks.whole_number(given) is None:
            raise self.wrong(name, given, f"it must be from 0 to {LONGEST}")
        for size in known:
            if given not in (None, size):
                raise self.wrong(name, given, f"the block mask was made for {size}")
            given = size
        value = default if given is None else given
        if value is None:
            raise self.wrong(name, None, "only a block mask knows its lengths; give a number")
        value = int(value)
        if not 0 <= value <= LONGEST:
            raise self.wrong(name, value, f"it must be from 0 to {LONGEST}")
        return value

    def wrong(self, name: str, value: object, problem: str) -> ProofArgumentError:
        return ProofArgumentError(function=self.function, name=name, value=value, problem=problem)

    def blame(
        self, mask: Expr, domain: Domain, pair: tuple[int, int, int, int]
    ) -> tuple[str, Location | None]:
        """The condition that decides ``mask`` at ``pair``, as text, and its line."""
        term = deciding_term(mask, domain, pair)
        text = format_expr(term, max_length=_MAX_TEXT)
        value = "true" if domain.value_at(term, pair) else "false"
        location = self.locations.get(term)
        return (f"`{text}` is {value}" if term.dtype is DType.BOOL else text), location
