"""Innermost loops of PTX or AMD assembly, found in the graph of their blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

_LABEL = re.compile(r"^(\$L__BB\w+|\.LBB\w+):")
_BRANCH = re.compile(r"\b(?:bra(?:\.uni)?|s_c?branch\w*)\s+(\$L__BB\w+|\.LBB\w+)")
# After these nothing falls through, unless a predicate comes first.
_LEAVES = re.compile(r"^\s*(?:bra(?:\.uni)?|ret|exit|s_branch|s_endpgm|s_setpc_b64)\b")


@dataclass(frozen=True)
class AssemblyLoop:
    """A loop: its header first, then the other blocks, in order of the text.

    ``blocks``: the lines of each; ``followers``: numbers of the blocks of the loop that a block goes
    on to, without the way back to the header.
    """

    blocks: tuple[tuple[str, ...], ...]
    followers: tuple[tuple[int, ...], ...]

    @cached_property
    def lines(self) -> list[str]:
        """All lines of the loop."""
        return [line for block in self.blocks for line in block]

    def longest(self, size: Callable[[Sequence[str]], int]) -> int:
        """The greatest sum of ``size`` of blocks on a way through one iteration."""
        return self._way(size, max)

    def shortest(self, size: Callable[[Sequence[str]], int]) -> int:
        """The least such sum."""
        return self._way(size, min)

    def _way(
        self, size: Callable[[Sequence[str]], int], best: Callable[[Sequence[int]], int]
    ) -> int:
        sums: dict[int, int] = {}

        def from_block(number: int) -> int:
            if number not in sums:
                rest = [from_block(follower) for follower in self.followers[number]]
                sums[number] = size(self.blocks[number]) + (best(rest) if rest else 0)
            return sums[number]

        return from_block(0)


def innermost_loops(lines: Sequence[str], counts: Callable[[str], object]) -> list[AssemblyLoop]:
    """The loops that hold no other, of those with a line that ``counts``, in the order they run in.

    A loop is what reaches a branch back to its header without passing the header, which every way
    into it passes: a branch back that only shares code makes none.
    """
    blocks, successors = _blocks(lines)
    dominators = _dominators(successors)
    bodies: dict[int, set[int]] = {}
    for block, following in enumerate(successors):
        for header in following:
            if block in dominators and header in dominators[block]:
                body = bodies.setdefault(header, {header})
                body |= _reaching(block, body, successors)
    busy = {
        header: bodies[header]
        for header in _topological(successors)  # in the text a later loop may come first
        if header in bodies and any(counts(line) for b in bodies[header] for line in blocks[b])
    }
    innermost = [
        (header, body)
        for header, body in busy.items()
        if not any(other != header and other in body for other in busy)
    ]
    return [_loop(header, body, blocks, successors) for header, body in innermost]


def _loop(
    header: int, body: set[int], blocks: list[tuple[str, ...]], successors: list[list[int]]
) -> AssemblyLoop:
    order = [header, *sorted(body - {header})]
    places = {block: place for place, block in enumerate(order)}
    followers = tuple(
        tuple(places[s] for s in successors[block] if s in places and s != header)
        for block in order
    )
    return AssemblyLoop(tuple(blocks[block] for block in order), followers)


def _blocks(lines: Sequence[str]) -> tuple[list[tuple[str, ...]], list[list[int]]]:
    """Blocks of lines that run in one go, and the numbers of those that may come next."""
    blocks: list[list[str]] = [[]]
    numbers: dict[str, int] = {}
    targets: list[list[str]] = [[]]
    falls: list[bool] = [True]

    def begin() -> None:
        blocks.append([])
        targets.append([])
        falls.append(True)

    for line in lines:
        if label := _LABEL.match(line):
            begin()
            numbers[label[1]] = len(blocks) - 1
        blocks[-1].append(line)
        targets[-1] += _BRANCH.findall(line)
        if _LEAVES.match(line):
            falls[-1] = False
            begin()
        elif _BRANCH.search(line):
            begin()
    successors = [[numbers[name] for name in names if name in numbers] for names in targets]
    for number, falls_through in enumerate(falls[:-1]):
        if falls_through:
            successors[number].append(number + 1)
    return [tuple(block) for block in blocks], successors


def _topological(successors: list[list[int]]) -> list[int]:
    """Blocks that are reached, each after all that lead to it, but for branches back."""
    finished: list[int] = []
    seen, stack = {0}, [(0, iter(successors[0]))]
    while stack:
        block, followers = stack[-1]
        following = next((f for f in followers if f not in seen), None)
        if following is None:
            finished.append(block)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(successors[following])))
    return finished[::-1]


def _dominators(successors: list[list[int]]) -> dict[int, set[int]]:
    """Of each block that is reached, the blocks that every way to it passes, itself included."""
    order: list[int] = []
    seen, stack = {0}, [0]
    while stack:
        block = stack.pop()
        order.append(block)
        for following in successors[block]:
            if following not in seen:
                seen.add(following)
                stack.append(following)
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for following in successors[block]:
            before[following].append(block)
    found = {block: set(order) for block in order}
    found[0] = {0}
    changes = True
    while changes:
        changes = False
        for block in order[1:]:
            new = set.intersection(*(found[b] for b in before[block])) | {block}
            if new != found[block]:
                found[block], changes = new, True
    return found


def _reaching(block: int, body: set[int], successors: list[list[int]]) -> set[int]:
    """Blocks from which ``block`` is reached without passing ``body``, and itself."""
    before: dict[int, list[int]] = {}
    for number, following in enumerate(successors):
        for follower in following:
            before.setdefault(follower, []).append(number)
    found, stack = set[int](), [block]
    while stack:
        number = stack.pop()
        if number in body or number in found:
            continue
        found.add(number)
        stack += before.get(number, [])
    return found
