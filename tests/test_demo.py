"""What the demo feeds its models: nothing lost, nothing twice."""

import re
import runpy
from pathlib import Path
from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st

from attnc.cli.demo import _body_of
from attnc.cli.embedding import packed, padded, sentences

ROOT = Path(__file__).parents[1]

token_lists = st.lists(st.lists(st.integers(1, 30000), min_size=1, max_size=20), min_size=1)


@given(token_lists, st.integers(1, 50), st.integers(1, 40))
def test_packing_keeps_every_sentence(ids: list[list[int]], row_length: int, tile: int) -> None:
    """Each sentence is whole and in one row; a row is too long only if a single sentence is."""
    rows = packed(ids, row_length, tile)

    found = {
        number: tokens.tolist()
        for row in rows
        for number, tokens in zip(
            row.numbers.tolist(), row.input_ids[0].split(row.lengths.tolist()), strict=True
        )
    }
    assert sum(len(row.numbers) for row in rows) == len(ids)
    assert [found[number] for number in range(len(ids))] == ids
    assert all(row.doc.numel() <= row_length or len(row.lengths) == 1 for row in rows)


@given(token_lists)
def test_packed_tokens_know_their_sentence_and_position(ids: list[list[int]]) -> None:
    """``doc`` and ``position_ids`` name each token's place in the input."""
    [row] = packed(ids, row_length=10**6)

    places = zip(row.numbers[row.doc[0]].tolist(), row.position_ids[0].tolist(), strict=True)

    assert [ids[number][at] for number, at in places] == row.input_ids[0].tolist()


@given(st.lists(st.integers(1, 64), min_size=1, max_size=10), st.randoms())
def test_packing_ends_sentences_where_tiles_end(cuts: list[int], random: Random) -> None:
    """Tiles cut in two, in any order, are put together again: no sentence lies across two."""
    ids = [[1] * length for cut in cuts for length in (cut, 64 - cut) if length]
    random.shuffle(ids)

    [row] = packed(ids, row_length=10**6, tile=64)

    ends = set(row.lengths.cumsum(0).tolist())
    assert ends >= set(range(64, 64 * len(cuts) + 1, 64))


@given(token_lists, st.integers(1, 8))
def test_padding_keeps_every_sentence(ids: list[list[int]], batch_size: int) -> None:
    """Under the mask of a batch are the tokens of its sentences; each sentence is in one batch."""
    batches = padded(ids, batch_size)

    found = {
        number: tokens[mask.bool()].tolist()
        for batch in batches
        for number, tokens, mask in zip(
            batch.numbers.tolist(), batch.input_ids, batch.attention_mask, strict=True
        )
    }
    assert sum(len(batch.numbers) for batch in batches) == len(ids)
    assert [found[number] for number in range(len(ids))] == ids


def test_sentences_are_prose() -> None:
    """300 different sentences, each from a capital letter to a full stop."""
    texts = sentences(300)

    assert len(set(texts)) == 300
    assert all(re.fullmatch(r'[A-Z"].*\.', text) and "\n" not in text for text in texts)


def test_body_of_a_function_is_shown_without_its_docstring() -> None:
    """The statements between the docstring and the next function, dedented."""
    source = (
        'def f(\n    x,\n):\n    """Doc."""\n    y = x\n\n    return y\n\n\ndef g():\n    pass\n'
    )

    assert _body_of("f", source) == "y = x\n\nreturn y"


def test_first_example_of_the_readme_runs(tmp_path: Path) -> None:
    """The code on the first screen does what it says."""
    [code, *_] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = tmp_path / "example.py"
    example.write_text(code)

    names = runpy.run_path(str(example))

    expected = torch.nn.functional.scaled_dot_product_attention(
        *(names[name][:, :, :1024] for name in "qkv"), is_causal=True
    )
    torch.testing.assert_close(names["out"][:, :, :1024], expected, rtol=2e-5, atol=2e-5)
