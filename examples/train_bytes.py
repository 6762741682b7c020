"""Trains a small transformer on bytes: packed documents, a sliding window, a learned bias.

    python examples/train_bytes.py --output .           # two minutes on two cores
    python examples/train_bytes.py --attention both     # six more, for SDPA

The text is what Python's ``help()`` knows about the language, topic by topic. Topics are packed end
to end into rows. A token sees the last 256 bytes of its own topic, positions start anew in each, and
every head learns in every layer what to add to its scores by distance. Which token belongs to which
topic is another tensor in each batch, but the kernels, forward and backward, stay the same.

With ``both``, two models of equal weights take turns on equal batches. One attends by attnc, the
other by PyTorch's SDPA with window, topics and bias as a dense mask. Their losses are to be equal.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import attnc

HEADS, WIDTH, LAYERS = 4, 128, 4
WINDOW = 256  # bytes that a token sees, its own included
FARTHEST = 127  # distances from here on share one bias
OPENING = 0  # the byte before each topic; the text has none
HELD_OUT = 8  # every so many topics one is for validation
PEAK_RATE = 3e-3
BITS = 1 / math.log(2)  # per nat

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Attention of q, k, v (batch, heads, length, head_dim) with a bias (heads, FARTHEST + 1)."""


class Batch(NamedTuple):
    """Rows of packed topics; every tensor (batch, length), int64."""

    tokens: Tensor
    targets: Tensor  # the byte that follows each token
    document: Tensor  # number of the token's topic in its row
    position: Tensor  # in the topic

    @staticmethod
    def of(rows: Tensor) -> Batch:
        """From rows of one byte more, (batch, length + 1)."""
        tokens = rows[:, :-1].contiguous()
        opens = tokens == OPENING
        places = torch.arange(tokens.shape[1]).expand(tokens.shape)
        starts = torch.where(opens, places, 0).cummax(1).values
        return Batch(tokens, rows[:, 1:].contiguous(), opens.cumsum(1), places - starts)


def fused(document: Tensor) -> Attend:
    """Attention within the topics of a batch, by attnc."""

    def near(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        same = document[b, q_idx] == document[b, kv_idx]
        return same & (q_idx >= kv_idx) & (q_idx - kv_idx < WINDOW)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        def biased(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return score + bias[h, torch.clamp(q_idx - kv_idx, 0, FARTHEST)]

        return attnc.attention(q, k, v, mask=near, score=biased)

    return attend


def dense(document: Tensor) -> Attend:
    """The same by SDPA; what the layers share is computed here, once for each batch."""
    places = torch.arange(document.shape[1])
    distance = places[:, None] - places
    near = (distance >= 0) & (distance < WINDOW)
    hidden = ~(near & (document[:, :, None] == document[:, None, :]))[:, None]
    row = distance.clamp(0, FARTHEST)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        pairs = bias.index_select(1, row.flatten()).unflatten(1, row.shape)
        mask = pairs.masked_fill(hidden, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


ATTENTIONS = {"attnc": fused, "sdpa": dense}


class Layer(nn.Module):
    """Attention and a perceptron, each after a norm and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.to_qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.from_heads = nn.Linear(WIDTH, WIDTH, bias=False)
        self.bias = nn.Parameter(torch.zeros(HEADS, FARTHEST + 1))
        self.perceptron = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        qkv = self.to_qkv(self.norms[0](x)).unflatten(2, (3, HEADS, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # views: no copy is made for the kernel
        heads = attend(q, k, v, self.bias)
        x = x + self.from_heads(heads.transpose(1, 2).flatten(2))
        y: Tensor = x + self.perceptron(self.norms[1](x))
        return y


class ByteTransformer(nn.Module):
    """Predicts from each byte of a topic the next one."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, WIDTH)
        self.places = nn.Embedding(length, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        for table in (self.bytes, self.places):
            nn.init.normal_(table.weight, std=0.05)

    def loss(self, batch: Batch, attend: Attend) -> Tensor:
        """Mean over the batch, in nats per byte."""
        x = self.bytes(batch.tokens) + self.places(batch.position)
        for layer in self.layers:
            x = layer(x, attend)
        logits = F.linear(self.norm(x), self.bytes.weight)
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())


def split_topics() -> tuple[list[Tensor], list[Tensor]]:
    """Bytes of the topics to train on, and of those held out."""
    texts = [torch.tensor([OPENING, *topics[name].encode()]) for name in sorted(topics)]
    return [text for i, text in enumerate(texts) if i % HELD_OUT], texts[::HELD_OUT]


def packed(texts: Sequence[Tensor], length: int) -> Tensor:
    """Texts end to end, cut into rows (n, length + 1) that overlap by one byte."""
    return torch.cat(list(texts)).unfold(0, length + 1, length)


def batches(texts: Sequence[Tensor], length: int, size: int) -> Iterator[Batch]:
    """Batches without end; topics and rows are in another order in each epoch."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(texts), generator=generator).tolist()
        rows = packed([texts[i] for i in order], length)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        yield from (Batch.of(part) for part in rows.split(size) if len(part) == size)


@dataclass
class Run:
    """One model, and how its training went."""

    attention: Callable[[Tensor], Attend]
    model: ByteTransformer
    n_steps: int
    losses: list[float] = field(default_factory=list)  # nats per byte
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95)
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, PEAK_RATE, total_steps=self.n_steps + 1, pct_start=0.1
        )

    def step(self, batch: Batch) -> None:
        """Forward, backward and update."""
        start = time.perf_counter()
        loss = self.model.loss(batch, self.attention(batch.document))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - start)
        self._schedule.step()
        self.losses.append(loss.item())

    def result(self, texts: Sequence[Tensor], length: int) -> dict[str, Any]:
        """Time and losses, on ``texts`` too, in bits per byte."""
        return {
            "ms_per_step": round(self.ms_per_step, 2),
            "held_out": round(BITS * self._loss_on(texts, length), 4),
            "last_20_steps": round(BITS * statistics.fmean(self.losses[-20:]), 4),
            "losses": [round(BITS * loss, 5) for loss in self.losses],
        }

    @torch.no_grad()
    def _loss_on(self, texts: Sequence[Tensor], length: int) -> float:
        batches = [Batch.of(rows) for rows in packed(texts, length).split(4)]
        sums = (
            self.model.loss(batch, self.attention(batch.document)) * batch.tokens.numel()
            for batch in batches
        )
        return float(sum(sums)) / sum(batch.tokens.numel() for batch in batches)

    @property
    def ms_per_step(self) -> float:
        """Median; the first step, which may build kernels, does not count."""
        return 1e3 * statistics.median(self.seconds[1:] or self.seconds)


def train(
    names: Sequence[str], n_steps: int, length: int, size: int, console: Console | None = None
) -> dict[str, Run]:
    """Trains one model for each name in ``ATTENTIONS``, by turns, step for step on equal batches.

    Args:
        names: Of attentions.
        n_steps: Updates of each model.
        length: Bytes in a row.
        size: Rows in a batch.
        console: Where progress is shown; nowhere if None.
    """
    runs = {}
    for name in names:
        torch.manual_seed(0)
        runs[name] = Run(ATTENTIONS[name], ByteTransformer(length), n_steps)
    source = batches(split_topics()[0], length, size)
    columns = (
        *(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task("", total=n_steps)
        for number in range(n_steps):
            batch = next(source)
            # Each goes first in every other step, so that none always finds the caches warm.
            for run in list(runs.values())[:: 1 if number % 2 else -1]:
                run.step(batch)
            told = (
                f"{name}: {BITS * statistics.fmean(run.losses[-20:]):.3f} bits per byte"
                for name, run in runs.items()
            )
            progress.update(task, advance=1, description=", ".join(told))
    return runs


def report(runs: dict[str, Run], length: int, size: int) -> dict[str, Any]:
    """What there is to tell about trained models, as it is written to JSON."""
    held_out = split_topics()[1]
    n_parameters = sum(x.numel() for x in next(iter(runs.values())).model.parameters())
    about = {
        "torch": torch.__version__,
        "n_threads": torch.get_num_threads(),
        "n_parameters": n_parameters,
        "length": length,
        "batch": size,
        "window": WINDOW,
    }
    content: dict[str, Any] = {
        "about": about,
        "runs": {name: run.result(held_out, length) for name, run in runs.items()},
    }
    if len(runs) == 2:
        ratio = runs["sdpa"].ms_per_step / runs["attnc"].ms_per_step
        content["sdpa_over_attnc"] = round(ratio, 3)
    return content


def draw(content: dict[str, Any], path: Path) -> None:
    """Writes the loss curves of ``report`` to ``path``; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    styles = {"attnc": ("#1f4e79", "-", 2.5), "sdpa": ("#f5b041", "--", 1.2)}
    titles = {"attnc": "attnc", "sdpa": "SDPA with a dense mask"}
    for name, run in content["runs"].items():
        colour, line, width = styles[name]
        told = (
            f"{titles[name]}: held out {run['held_out']:.3f}, {run['ms_per_step']:.0f} ms per step"
        )
        axes.plot(run["losses"], line, color=colour, linewidth=width, label=told)
    about = content["about"]
    axes.set_title(
        f"{about['n_parameters']:,} parameters, {about['batch']} rows of {about['length']} bytes,"
        f" window {about['window']}, threads: {about['n_threads']}"
    )
    axes.set_xlabel("step")
    axes.set_ylabel("loss on the batch, bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _require_rows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where the text cannot fill a batch."""
    if min(options.steps, options.length, options.batch) < 1:
        parser.error("--steps, --length and --batch are at least 1")
    for texts, n_wanted in zip(split_topics(), (options.batch, 1), strict=True):
        n_rows = (sum(map(len, texts)) - 1) // options.length
        if n_rows < n_wanted:
            parser.error(f"{n_rows} rows of {options.length} bytes: too few for a batch")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--attention", choices=(*ATTENTIONS, "both"), default="attnc")
    parser.add_argument("--length", type=int, default=1024, help="bytes in a row")
    parser.add_argument("--batch", type=int, default=2, help="rows in a batch")
    parser.add_argument("--output", type=Path, help="folder for train_bytes.json and .png")
    options = parser.parse_args(arguments)
    _require_rows(parser, options)
    names = tuple(ATTENTIONS) if options.attention == "both" else (options.attention,)

    console = Console()
    runs = train(names, options.steps, options.length, options.batch, console)
    content = report(runs, options.length, options.batch)
    for name, run in content["runs"].items():
        console.print(
            f"{name}: {run['ms_per_step']:.1f} ms per step, bits per byte {run['losses'][0]:.3f} at"
            f" first, {run['last_20_steps']:.3f} at last, {run['held_out']:.3f} on topics held out"
        )
    if "sdpa_over_attnc" in content:
        console.print(
            f"A step with dense SDPA takes {content['sdpa_over_attnc']:.2f} times as long."
        )
    if options.output is None:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "train_bytes.json").write_text(json.dumps(content, indent=1) + "\n")
    try:
        draw(content, options.output / "train_bytes.png")
    except ImportError as missing:
        console.print(f"no picture: {missing}")


if __name__ == "__main__":
    main()
