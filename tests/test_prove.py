"""``attnc.prove``: properties of masks are proved or refuted, never wrongly."""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proofs import as_given, assert_decided, assert_right, causal, dense, sizes_of

import attnc
from attnc import prove
from attnc.errors import ProofArgumentError, WrongModKindError
from attnc.prove import Proof
from attnc.testing import MaskRecipe, Shape, TensorRecipe, masks, shapes
from examples.systems.catalogue import load_systems

MILLION = 1 << 20


# For each property: the pairs (or rows, as pairs with one key) where a mask violates it.


def later_keys(visible: torch.Tensor) -> torch.Tensor:
    return visible & torch.ones(visible.shape[2:], dtype=torch.bool).triu(1)


def empty_rows(visible: torch.Tensor) -> torch.Tensor:
    return ~visible.any(3, keepdim=True)


def mirrored_differ(visible: torch.Tensor) -> torch.Tensor:
    return visible ^ visible.transpose(2, 3)


def removed_next(visible: torch.Tensor) -> torch.Tensor:
    return visible[:, :, :-1] & ~visible[:, :, 1:]


PROPERTIES: dict[str, tuple[Callable[..., Proof], Callable[[torch.Tensor], torch.Tensor]]] = {
    "causal": (prove.causal, later_keys),
    "rows_nonempty": (prove.rows_nonempty, empty_rows),
    "symmetric": (prove.symmetric, mirrored_differ),
    "monotone": (prove.monotone, removed_next),
}


def square(shape: Shape) -> tuple[int, int, int, int]:
    return shape.n_batch, shape.n_heads, shape.n_queries, shape.n_queries


@given(st.sampled_from(sorted(PROPERTIES)), masks(), shapes())
@example("causal", MaskRecipe("(q_idx < 0)"), Shape(n_queries=1, n_keys=1))
def test_properties_are_decided_as_all_pairs_decide_them(
    name: str, recipe: MaskRecipe, shape: Shape
) -> None:
    """Random masks: True where no pair violates a property, else a pair that does."""
    proving, violations = PROPERTIES[name]
    mask = recipe.build()
    visible = dense(mask, *(square(shape) if name == "symmetric" else as_given(shape)))

    assert_decided(proving(mask, **sizes_of(visible)), violations(visible))


@given(masks(max_depth=2), masks(max_depth=2), shapes(), st.booleans())
def test_relations_of_two_masks_are_decided_as_all_pairs_decide_them(
    recipe: MaskRecipe, other: MaskRecipe, shape: Shape, related: bool
) -> None:
    """``implies`` and ``equal`` of random masks, unrelated or one made from the other."""
    x, y = recipe.build(), other.build()
    if related:
        x = attnc.and_masks(y, x)
    seen, other_seen = (dense(mask, *as_given(shape)) for mask in (x, y))

    assert_decided(prove.implies(x, y, **sizes_of(seen)), seen & ~other_seen)
    assert_decided(prove.equal(x, y, **sizes_of(seen)), seen ^ other_seen)


@given(st.sampled_from(sorted(PROPERTIES)), masks(), shapes(), st.integers(0, 200_000))
def test_small_budgets_leave_open_and_never_mislead(
    name: str, recipe: MaskRecipe, shape: Shape, budget: int
) -> None:
    """With any budget an answer is right or None, and None says what is open."""
    proving, violations = PROPERTIES[name]
    mask = recipe.build()
    visible = dense(mask, *(square(shape) if name == "symmetric" else as_given(shape)))

    proof = proving(mask, **sizes_of(visible), budget=budget)

    assert_right(proof, violations(visible))
    assert proof.holds is not None or "open" in proof.detail


@given(
    st.sampled_from(sorted(PROPERTIES)),
    masks(),
    shapes(),
    st.lists(st.integers(0, 300), min_size=3, max_size=3),
)
def test_proofs_for_all_lengths_hold_at_others(
    name: str, recipe: MaskRecipe, shape: Shape, lengths: list[int]
) -> None:
    """What is proved beyond the lengths asked for is true of all pairs at other lengths."""
    proving, violations = PROPERTIES[name]
    mask = recipe.build()
    n_batch, n_heads, n_queries, _ = square(shape)
    proof = proving(mask, B=n_batch, H=n_heads, Q_LEN=n_queries)
    if proof.max_length is None:
        return

    assert proof.holds
    for length in lengths:
        assert not violations(dense(mask, n_batch, n_heads, length, length)).any()
    if name in ("causal", "monotone"):
        assert not violations(dense(mask, n_batch, n_heads, *lengths[:2])).any()
    if name == "rows_nonempty":
        n_queries, n_keys = sorted(lengths[:2])
        assert not n_keys or not violations(dense(mask, n_batch, n_heads, n_queries, n_keys)).any()


def test_no_proof_reaches_lengths_at_which_integers_wrap() -> None:
    """Where ``q_idx + 5`` wraps, the key at 0 is hidden: the proof ends before."""

    def padded(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv <= q + 5

    proof = prove.rows_nonempty(padded, Q_LEN=100)
    (last,) = torch.tensor([2**31 - 2], dtype=torch.int32)

    assert proof.max_length == 1 << 30
    assert not padded(0, 0, last, torch.tensor(0, dtype=torch.int32))


MASKS = {
    name: (mask, system.shape)
    for name, system in load_systems().items()
    if (mask := system.build().mask) is not None
}


@pytest.mark.parametrize("name", MASKS)
def test_properties_of_published_masks_are_decided(name: str) -> None:
    """Every property of every mask of the published systems has an answer, and the right one."""
    mask, shape = MASKS[name]
    visible = dense(mask, *shape)
    for title, (proving, violations) in PROPERTIES.items():
        if title == "symmetric" and visible.shape[2] != visible.shape[3]:
            continue
        assert_decided(proving(mask, **sizes_of(visible)), violations(visible))
    later = visible & ~dense(causal, *shape)
    assert_decided(prove.implies(mask, causal, **sizes_of(visible)), later)


@pytest.mark.parametrize(
    ("name", "system", "holds"),
    [
        ("causal", "power_attention", True),
        ("causal", "bamm", False),
        ("rows_nonempty", "romtrack", True),
        ("symmetric", "swin", True),
        ("symmetric", "romtrack", False),
        ("monotone", "perceiver_ar", True),
        ("monotone", "s2_attention", False),
    ],
)
def test_answers_for_published_masks_are_those_of_their_papers(
    name: str, system: str, holds: bool
) -> None:
    """Both answers of each property; those that hold do so for all lengths."""
    mask, shape = MASKS[system]
    sizes = dict(zip(("B", "H", "Q_LEN", "KV_LEN"), shape, strict=True))

    proof = PROPERTIES[name][0](mask, **sizes)

    assert proof.holds is holds
    assert (proof.max_length is not None) is holds


def test_queries_beyond_the_keys_they_are_aligned_with_see_none() -> None:
    """FaceFormer's alignment with audio for 50 of 64 frames: one of the others is named."""
    mask, _ = MASKS["faceformer_alignment"]

    assert prove.rows_nonempty(mask, Q_LEN=64, KV_LEN=128).holds
    proof = prove.rows_nonempty(mask, Q_LEN=64, KV_LEN=100)
    assert proof.counterexample is not None
    assert proof.counterexample[2] in range(50, 64)
    assert proof.counterexample[3] is None
    assert proof.detail == "this query sees no key"


@given(st.integers(0, (1 << 14) - 1), st.integers(0, (1 << 14) - 1))
@example((1 << 14) - 7, (1 << 14) - 6)
@example(0, (1 << 14) - 7)
@settings(max_examples=20)
def test_a_single_leak_is_found_wherever_it_is(x: int, y: int) -> None:
    """One visible later key among 2^28 pairs, which the form of the mask does not show."""
    place, key = min(x, y), max(x, y) + 1
    later = torch.tensor([key, place])

    def leaking(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) | ((kv == later[0]) & (q == later[1]))

    proof = prove.causal(leaking, Q_LEN=(1 << 14) + 1)

    assert proof.counterexample == (0, 0, place, key)


def test_queries_that_see_other_blocks_are_settled_by_whole_rectangles() -> None:
    """Each block of queries sees one block of keys, none of them near; then one sees no block."""
    n, block = 4096, 64
    seen_by = (torch.arange(n // block) * 37 + 11) % (n // block)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv // block == seen_by[q // block]

    assert prove.rows_nonempty(mask, Q_LEN=n).holds
    seen_by[40] = -1
    proof = prove.rows_nonempty(mask, Q_LEN=n)
    assert proof.counterexample is not None
    assert proof.counterexample[2] // block == 40


def test_queries_beyond_the_keys_have_no_key_of_their_own() -> None:
    """The diagonal is no witness where there are more queries than keys."""
    proof = prove.rows_nonempty(lambda b, h, q, kv: q == kv, Q_LEN=64, KV_LEN=40)

    assert proof.holds is False
    assert prove.rows_nonempty(lambda b, h, q, kv: q == kv, Q_LEN=40, KV_LEN=64).max_length


def test_all_that_the_budget_did_not_reach_is_counted_as_open() -> None:
    """Pairs that only evaluation decides are open until they are evaluated."""
    generator = torch.Generator().manual_seed(6)
    noise = torch.rand(700, 700, generator=generator)

    def noisy(b: Any, h: Any, q: Any, kv: Any) -> Any:
        angle = 9 * noise[q, kv]
        return (q >= kv) | (torch.sin(angle) ** 2 + torch.cos(angle) ** 2 > 1.5)

    for budget in (0, 1000, 40_000, 200_000):
        proof = prove.causal(noisy, Q_LEN=700, budget=budget)
        n_open = int(proof.detail.split()[0].replace(",", ""))
        assert 700 * 699 // 2 - budget <= n_open <= 700 * 700
    angles = 9 * torch.rand(40_000, generator=generator)
    many = prove.causal(
        lambda b, h, q, kv: torch.sin(angles[b]) ** 2 + torch.cos(angles[b]) ** 2 > 1.5,
        B=40_000,
        Q_LEN=2,
        budget=0,
    )
    assert many.detail.startswith("160,000 of 160,000 pairs are open")


def documents(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.sort(torch.randint(0, 1000, (n,), generator=generator))[0]


def test_a_million_tokens_are_proved_in_well_under_a_second() -> None:
    """Causal attention within a thousand documents at 1M tokens, for all lengths."""
    ids = documents(MILLION)

    def packed(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (q >= kv) & (ids[q] == ids[kv])

    started = time.perf_counter()
    proofs = [
        prove.causal(packed, Q_LEN=MILLION),
        prove.rows_nonempty(packed, Q_LEN=MILLION),
        prove.implies(packed, causal, Q_LEN=MILLION),
    ]
    seconds = time.perf_counter() - started

    assert all(proof.holds and proof.max_length == prove.LONGEST for proof in proofs)
    assert seconds < 2  # 0.03 s on a quiet machine


def test_one_leak_in_a_million_tokens_is_found() -> None:
    """A single pair among 10^12 that no sample would meet, with the line that lets it through."""

    def leaking(b: Any, h: Any, q: Any, kv: Any) -> Any:
        special = (kv == 777_777) & (q == 5)
        return (kv <= q) | special

    proof = prove.causal(leaking, Q_LEN=MILLION)

    assert proof.counterexample == (0, 0, 5, 777_777)
    assert proof.detail.startswith("this later key is visible: `(kv_idx == 777777)")
    assert proof.location is not None
    assert proof.location.source == "special = (kv == 777_777) & (q == 5)"
    assert "b=0, h=0, q_idx=5, kv_idx=777777" in str(proof)


def test_rows_of_a_permutation_are_decided() -> None:
    """No range of queries says anything about a random permutation: each row is asked alone."""
    generator = torch.Generator().manual_seed(4)
    place = torch.randperm(3000, generator=generator)

    assert prove.rows_nonempty(lambda b, h, q, kv: kv == place[q], Q_LEN=3000).holds
    place[2321] = 3000
    proof = prove.rows_nonempty(lambda b, h, q, kv: kv == place[q], Q_LEN=3000)
    assert proof.counterexample == (0, 0, 2321, None)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(q_idx >= kv_idx) & (q_idx - kv_idx < 64)", "(q_idx - kv_idx >= 0) & (q_idx < kv_idx + 64)"),
        ("(q_idx // 16 == kv_idx // 16)", "(q_idx >> 4) == (kv_idx >> 4)"),
        ("(q_idx % 8 == kv_idx % 8)", "(q_idx & 7) == (kv_idx & 7)"),
        ("abs(q_idx - kv_idx) <= 9", "(q_idx - kv_idx <= 9) & (kv_idx - q_idx <= 9)"),
        ("torch.maximum(q_idx, kv_idx) < 50", "(q_idx < 50) & (kv_idx < 50)"),
        ("torch.where(q_idx < 8, kv_idx < 8, kv_idx <= q_idx)", "~((q_idx < 8) & (kv_idx > 7)) & ((q_idx < 8) | (q_idx >= kv_idx))"),
        ("t0[q_idx] == t0[kv_idx]", "~((t0[q_idx] > t0[kv_idx]) | (t0[kv_idx] > t0[q_idx]))"),
        ("2 * q_idx > 2 * kv_idx + 1", "q_idx > kv_idx"),
        ("t1[q_idx] < t1[kv_idx]", "t1[kv_idx] > t1[q_idx]"),
    ],
)  # fmt: skip
def test_equal_masks_written_differently_are_equal_at_all_lengths(left: str, right: str) -> None:
    """Arithmetic sees through floors, remainders, cases and integer rounding."""
    tables = (TensorRecipe((300,), high=9), TensorRecipe((300,), "float32", low=-3, high=3))
    x, y = (MaskRecipe(source, tables).build() for source in (left, right))
    # One mask over both, so that they share their tables.
    both = MaskRecipe(f"({left}) ^ ({right})", tables).build()

    proof = prove.implies(both, lambda b, h, q, kv: q < 0, Q_LEN=200)

    assert proof.holds
    assert proof.max_length is not None
    assert torch.equal(dense(x, 1, 1, 90, 80), dense(y, 1, 1, 90, 80))


def test_mirrored_comparisons_of_nan_are_not_negations() -> None:
    """``a < b`` and ``a >= b`` are both false for NaN: not equal to each other's negation."""
    table = torch.tensor([0.0, float("nan"), 1.0])

    proof = prove.equal(
        lambda b, h, q, kv: table[q] < table[kv],
        lambda b, h, q, kv: ~(table[q] >= table[kv]),
        Q_LEN=3,
    )

    assert proof.counterexample is not None
    assert 1 in proof.counterexample[2:]


def test_longer_contexts_of_masks_made_for_a_length() -> None:
    """A mask made for a length loses a key where a longer one hides what a shorter one showed."""

    def last_keys(n: int) -> Callable[..., Any]:
        return lambda b, h, q, kv: (kv <= q) & (kv >= n - 8)

    def first_keys(n: int) -> Callable[..., Any]:
        return lambda b, h, q, kv: kv < n // 2

    assert prove.monotone(first_keys(20), longer=first_keys(21), Q_LEN=20).holds
    proof = prove.monotone(last_keys(20), longer=last_keys(21), Q_LEN=20)
    assert proof.counterexample == (0, 0, 12, 12)


def test_kernels_and_block_masks_are_masks() -> None:
    """A Kernel is its function; a BlockMask is what its lists say, at its own lengths."""
    window = attnc.kernel(lambda b, h, q, kv: (q >= kv) & (q - kv < 40))
    block_mask = attnc.create_block_mask(window, None, None, 300, 300)
    lists = attnc.BlockMask.from_kv_blocks(
        block_mask.kv_num_blocks,
        block_mask.kv_indices,
        mask_mod=window.fn,
        seq_lengths=(300, 300),
    )

    assert prove.causal(window, Q_LEN=300).holds
    assert prove.causal(block_mask).holds
    assert prove.causal(block_mask).max_length is None
    assert prove.equal(lists, window).holds
    everything = attnc.BlockMask.from_kv_blocks(
        block_mask.kv_num_blocks, block_mask.kv_indices, seq_lengths=(300, 300)
    )
    proof = prove.equal(window, everything, Q_LEN=300)
    assert proof.holds is False
    assert "visible in other" in proof.detail


def test_batches_and_heads_are_told_apart() -> None:
    """A counterexample names the one head of the one batch that leaks."""
    window = torch.zeros(3, 40, dtype=torch.int32)
    window[2, 33] = 7

    def shifted(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return kv <= q + window[b, h]

    proof = prove.causal(shifted, B=3, H=40, Q_LEN=64)

    assert proof.counterexample is not None
    assert proof.counterexample[:2] == (2, 33)
    assert prove.causal(shifted, B=2, H=40, Q_LEN=64).holds


def test_lengths_of_0_are_answered() -> None:
    """Without pairs all holds; a query without keys sees none."""
    assert prove.causal(lambda b, h, q, kv: kv > q, Q_LEN=0).holds
    assert prove.monotone(lambda b, h, q, kv: kv > q, Q_LEN=0).holds
    assert prove.rows_nonempty(causal, Q_LEN=0, KV_LEN=7).holds
    assert prove.rows_nonempty(causal, Q_LEN=7, KV_LEN=0).counterexample == (0, 0, 0, None)


def test_proofs_are_conditions_only_where_proved() -> None:
    """``assert prove.causal(...)`` fails for what is refuted and for what is left open."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand(700, 700, generator=generator)
    noisy = prove.causal(
        lambda b, h, q, kv: (q >= kv) | (noise[q, kv] * noise[kv, q] > 1), Q_LEN=700, budget=40_000
    )

    assert prove.causal(causal, Q_LEN=64)
    assert not prove.causal(lambda b, h, q, kv: kv == 9, Q_LEN=64)
    assert noisy.holds is None
    assert not noisy
    assert "open; give a larger budget" in str(noisy)
    assert pickle.loads(pickle.dumps(noisy)) == noisy


def test_wrong_sizes_are_told() -> None:
    """A length that is missing, negative, or not that of a block mask."""
    block_mask = attnc.create_block_mask(causal, None, None, 256, 256)

    with pytest.raises(ProofArgumentError, match=r"causal\(Q_LEN=None\): only a block mask knows"):
        prove.causal(causal)
    with pytest.raises(
        ProofArgumentError, match=r"causal\(B=-1\): it must be from 0 to 2147483647"
    ):
        prove.causal(causal, B=-1, Q_LEN=8)
    with pytest.raises(ProofArgumentError, match=r"KV_LEN=300\): the block mask was made for 256"):
        prove.rows_nonempty(block_mask, KV_LEN=300)
    with pytest.raises(ProofArgumentError, match=r"equal\(budget=-1\): it must not be negative"):
        prove.equal(causal, causal, Q_LEN=8, budget=-1)
    with pytest.raises(WrongModKindError):
        prove.causal(lambda score, b, h, q, kv: score, Q_LEN=8)


@pytest.mark.parametrize("property_", ["causal", "rows_nonempty", "in_bounds"])
def test_a_proof_for_one_head_says_so_where_heads_differ(property_: str) -> None:
    """What is left out is 1: a success then says nothing of the other heads, and tells."""
    starts = torch.tensor([0, 3])
    masks = {
        "causal": lambda b, h, q, kv: kv <= q + h,
        "rows_nonempty": lambda b, h, q, kv: kv >= starts[h],
        "in_bounds": lambda b, h, q, kv: (starts[h] <= kv) & (starts[b * 0] <= q),
    }
    ask = functools.partial(getattr(prove, property_), masks[property_], Q_LEN=3)

    alone, given, more = ask(), ask(H=1), ask(H=3)

    note = "for H=1, since no number was given, of a mask that reads h"
    assert alone.holds
    assert alone.detail == note
    assert note in str(alone)
    assert given.holds
    assert given.detail == ""
    assert more.holds is False
