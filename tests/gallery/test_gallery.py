"""Every system of the gallery against its dense twin: both passes, both backends, exact tiles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
import torch
from cpu_kernels import load, program_of, run, run_backward, spec_of
from gallery.harness import (
    SYSTEMS,
    assert_same_outcome,
    dense_attention,
    load_twins,
    problem_of,
)

import attnc
from attnc.plan import Wanted
from attnc.testing import InputsRecipe, Shape, check

TWINS = load_twins()
ROOMS = {
    room: [name for name in names if name in TWINS]
    for room, names in groupby(SYSTEMS, lambda name: SYSTEMS[name].needs)
}
#: Interpreted in the default run; one of each room in the slow one.
SAMPLE = ("swin", "flex_attention_paged")


def test_every_system_has_a_dense_twin() -> None:
    assert set(TWINS) == set(SYSTEMS)


@pytest.mark.parametrize("room", ROOMS)
def test_cpu_kernels_equal_the_dense_twins(room: str) -> None:
    """All systems of a room in one translation unit: out, lse and every gradient."""
    names = ROOMS[room]
    parts = [SYSTEMS[name].build() for name in names]
    programs = [program_of(part.mask, part.score) for part in parts]
    learned = [
        tuple(
            next(slot for slot, x in enumerate(program.tensors) if x is part.data[name])
            for name in part.learned
        )
        for part, program in zip(parts, programs, strict=True)
    ]
    kernels = load(
        [spec_of(program) for program in programs]
        + [
            spec_of(program, gradients=Wanted(True, True, True, tuple(sorted(slots))))
            for program, slots in zip(programs, learned, strict=True)
        ]
    )
    forwards, backwards = kernels[: len(names)], kernels[len(names) :]

    for name, part, program, slots, forward, backward in zip(
        names, parts, programs, learned, forwards, backwards, strict=True
    ):
        problem = problem_of(SYSTEMS[name])
        q, k, v = problem.q, problem.k, problem.v
        result = run(forward, program, q, k, v)
        ascending = sorted(slots)
        found = run_backward(
            *(backward, program, q, k, v, result, problem.grad_out, problem.grad_lse, ascending)
        )
        gradients = [*found[:3], *(found[3 + ascending.index(slot)] for slot in slots)]
        expected = dense_attention(TWINS[name], part, problem)
        assert_same_outcome(name, part, result.out, result.lse, gradients, expected)


@pytest.mark.parametrize("name", TWINS)
def test_masks_and_tiles_are_those_of_the_twin(name: str) -> None:
    """The mask is the twin's at every pair, compiled too; a tile is EMPTY, PARTIAL or FULL, and
    loop bounds visit it, exactly as its pairs are."""
    system = SYSTEMS[name]
    n_batch, n_heads, n_queries, n_keys = system.shape
    parts = system.build()
    visible = TWINS[name](parts.data).visible
    dense = torch.ones(1, dtype=torch.bool) if visible is None else visible
    dense = dense.expand(system.shape)

    check(
        attnc.noop_mask if parts.mask is None else parts.mask,
        expected=lambda b, h, q_idx, kv_idx: dense[b, h, q_idx, kv_idx],
        laws="expected,compiled-mask,tiles,loop-bounds",
        backends=[],
        at=InputsRecipe(Shape(n_batch, n_heads, n_queries, n_keys, n_kv_heads=n_heads)),
    )


def interpret(names: Sequence[str]) -> None:
    """In a process of its own: Triton decides at import whether its functions are interpreted."""
    command = [
        sys.executable,
        "-c",
        f"from gallery.test_gallery import main; main({list(names)!r})",
    ]
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(root / "tests"), str(root)]),
    }

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, f"{result.stdout.splitlines()[-1:]}\n{result.stderr}"


def main(names: Sequence[str]) -> None:
    for name in names:
        print(name, flush=True)
        parts = SYSTEMS[name].build()
        problem = problem_of(SYSTEMS[name])
        q, k, v = (x.requires_grad_() for x in (problem.q, problem.k, problem.v))
        learned = [parts.data[name].requires_grad_() for name in parts.learned]
        out, lse = attnc.attention(
            *(q, k, v), mask=parts.mask, score=parts.score, return_lse=True, backend="triton"
        )
        gradients = torch.autograd.grad(
            (out, lse), (q, k, v, *learned), (problem.grad_out, problem.grad_lse)
        )
        expected = dense_attention(TWINS[name], parts, problem_of(SYSTEMS[name]))
        assert_same_outcome(name, parts, out, lse, list(gradients), expected)


def test_some_triton_kernels_equal_the_dense_twins() -> None:
    """Both passes, interpreted."""
    interpret(SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("rooms", [list(ROOMS)[n::4] for n in range(4)], ids=range(4))
def test_triton_kernels_of_every_room_equal_the_dense_twins(rooms: list[str]) -> None:
    """Both passes of a system of each, interpreted."""
    interpret([ROOMS[room][0] for room in rooms])


@pytest.mark.exhaustive
@pytest.mark.parametrize("room", ROOMS)
def test_triton_kernels_equal_the_dense_twins(room: str) -> None:
    """Both passes of every system, interpreted."""
    interpret(ROOMS[room])
