"""The demo: a pretrained model embeds real sentences, packed by attnc, and is held to the stock model."""

from __future__ import annotations

import ast
import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress
from rich.syntax import Syntax
from rich.table import Table

from attnc import Analysis, Kernel, analyze, kernel
from attnc.cli import embedding
from attnc.cli.embedding import Row
from attnc.testing import check

TOLERANCE = 1e-4
QUERY = "How do I handle an error raised by my code?"
_LEFT_OUT = "attnc_demo_left_out"
_TILE = 64  # tokens
_TIMING_SECONDS = 60.0


@dataclass(frozen=True)
class Contender:
    """One way to embed all sentences, and how often it is timed at the most."""

    name: str
    embed: Callable[[], torch.Tensor]
    n_tokens: int
    n_rounds: int


def document_mask(doc: torch.Tensor) -> Kernel:
    """The mask of packed sentences: ``doc`` is (batch, n_tokens), the sentence of each token."""

    @kernel
    def same_document(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return doc[b, q_idx] == doc[b, kv_idx]

    return same_document


def main(n_sentences: int = 300, console: Console | None = None) -> int:
    """Runs the demo and prints what it finds; 0, or 1 where the embeddings differ.

    Raises:
        DemoPackagesError: transformers or the package with the weights is missing.
    """
    console = console or Console()
    with torch.inference_mode():
        return _run(n_sentences, console)


def _run(n_sentences: int, console: Console) -> int:
    start = time.perf_counter()
    texts = embedding.sentences(n_sentences)
    ids = embedding.tokenized(texts)
    rows = embedding.packed(ids)
    stock, ours, without = _models()
    loading = time.perf_counter() - start
    console.print(_inputs(ids, rows))

    start = time.perf_counter()
    embeddings = embedding.embed_packed(ours, rows, document_mask)
    first = time.perf_counter() - start
    with console.status("the stock model, one sentence at a time"):
        expected = embedding.embed_padded(stock, embedding.padded(ids, 1))
    difference = (embeddings - expected).abs().amax(1)
    console.print(_agreement(difference, texts))

    console.print(_best_matches(QUERY, embeddings, texts, ours))
    same_document = document_mask(rows[0].doc)
    console.print(_tiles(rows))
    console.print(_kernel_heart(same_document))
    console.print(f"check: {check(same_document)}\n")

    contenders = _contenders(ids, rows, stock, ours, without)
    console.print(_times(contenders, _timed(contenders, console)))
    console.print(
        f"Not counted: loading transformers and the weights {loading:.1f} s; the first packed run, "
        f"with the kernel built or read from disk, {first:.2f} s."
    )
    return int(not difference.max().item() < TOLERANCE)


def _models() -> tuple[Any, Any, Any]:
    """The stock model, the one with attnc, and one whose attention only hands on the values."""
    embedding.model_folder()  # says what is missing before transformers is imported
    from transformers import AttentionInterface

    from attnc.integrations.transformers import register

    def left_out(
        module: object, q: object, k: object, v: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, None]:
        return v.transpose(1, 2), None

    AttentionInterface.register(_LEFT_OUT, left_out)
    return embedding.load("sdpa"), embedding.load(register()), embedding.load(_LEFT_OUT)


def _inputs(ids: Sequence[Sequence[int]], rows: Sequence[Row]) -> str:
    row_lengths = ", ".join(str(row.doc.shape[1]) for row in rows)
    return (
        f"[bold]{len(ids)} sentences, {sum(map(len, ids)):,} tokens[/bold] "
        f"({min(map(len, ids))} to {max(map(len, ids))} each) from Python's help pages, packed into "
        f"{len(rows)} sequences of {row_lengths} tokens\n"
        f"model: all-MiniLM-L6-v2, float32, {torch.get_num_threads()} threads\n"
    )


def _agreement(difference: torch.Tensor, texts: Sequence[str]) -> str:
    worst = int(difference.argmax())
    value = difference[worst].item()
    verdict = "[green]below[/green]" if value < TOLERANCE else "[red]NOT below[/red]"
    return (
        f"largest difference from the stock model, sentence by sentence: [bold]{value:.2e}[/bold], "
        f"{verdict} {TOLERANCE:g}\n  (in: {_shortened(texts[worst], 80)})\n"
    )


def _best_matches(query: str, embeddings: torch.Tensor, texts: Sequence[str], model: Any) -> Table:
    [row] = embedding.packed(embedding.tokenized([query]))
    asked = embedding.embed_packed(model, [row], document_mask)
    cosine = torch.nn.functional.cosine_similarity(asked, embeddings)
    table = Table(title=f'best matches for "{query}"', title_justify="left")
    table.add_column("cosine", justify="right")
    table.add_column("sentence")
    for at in cosine.topk(min(3, len(texts))).indices.tolist():
        table.add_row(f"{cosine[at]:.3f}", texts[at])
    return table


def _tiles(rows: Sequence[Row]) -> Panel:
    """The first row as a picture, and what is skipped in all of them."""
    analyses = [_analysis(row) for row in rows]
    n_empty = sum(analysis.n_empty for analysis in analyses)
    n_tiles = sum(analysis.table.n_tiles for analysis in analyses)
    return Panel(
        analyses[0].picture(),
        title=f"{100 * n_empty / n_tiles:.1f} % of {n_tiles:,} tiles skipped",
        subtitle=f"the first {rows[0].doc.numel()} tokens, in tiles of {_TILE} x {_TILE}",
        expand=False,
    )


def _analysis(row: Row) -> Analysis:
    n_tokens = row.doc.shape[1]
    return analyze(document_mask(row.doc), 1, 1, n_tokens, n_tokens, BLOCK_SIZE=_TILE)


def _kernel_heart(same_document: Kernel) -> Panel:
    body = _body_of("add_tile", same_document.source("triton"))
    heart = Syntax(body, "python", background_color="default", word_wrap=True)
    return Panel(heart, title="its Triton kernel: what one tile of keys adds", expand=False)


def _body_of(name: str, source: str) -> str:
    """The statements of a function of a program, without its docstring, dedented."""
    [function] = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    first = function.body[1 if ast.get_docstring(function) else 0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 : function.end_lineno]))


def _contenders(
    ids: Sequence[Sequence[int]], rows: Sequence[Row], stock: Any, ours: Any, without: Any
) -> list[Contender]:
    one = embedding.padded(ids, len(ids))
    by_length = embedding.padded(ids, 32)
    n_packed = sum(map(len, ids))
    return [
        Contender(
            "one padded batch",
            lambda: embedding.embed_padded(stock, one),
            sum(batch.input_ids.numel() for batch in one),
            3,
        ),
        Contender(
            "sorted, batches of 32",
            lambda: embedding.embed_padded(stock, by_length),
            sum(batch.input_ids.numel() for batch in by_length),
            7,
        ),
        Contender(
            "packed, attnc",
            lambda: embedding.embed_packed(ours, rows, document_mask),
            n_packed,
            7,
        ),
        Contender(
            "attention left out: limit",
            lambda: embedding.embed_packed(without, rows, None),
            n_packed,
            7,
        ),
    ]


def _timed(contenders: Sequence[Contender], console: Console) -> list[list[float]]:
    """Seconds of each run of each contender; they take turns, so that all meet the same machine.

    On a slow or busy machine there are fewer turns, but three at least.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    enough = time.perf_counter() + _TIMING_SECONDS
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("timing, in turns", total=sum(c.n_rounds for c in contenders))
        for number in range(max(c.n_rounds for c in contenders)):
            if number >= 3 and time.perf_counter() > enough:
                break
            for contender, times in zip(contenders, seconds, strict=True):
                if number < contender.n_rounds:
                    start = time.perf_counter()
                    contender.embed()
                    times.append(time.perf_counter() - start)
                    progress.advance(task)
    return seconds


def _times(contenders: Sequence[Contender], seconds: Sequence[Sequence[float]]) -> Table:
    table = Table(title="all sentences, runs in turns", title_justify="left")
    table.add_column("how")
    for heading in ("tokens", "median s", "fastest s", "slowest s", "runs"):
        table.add_column(heading, justify="right")
    for contender, times in zip(contenders, seconds, strict=True):
        table.add_row(
            contender.name,
            f"{contender.n_tokens:,}",
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f}",
            f"{max(times):.2f}",
            str(len(times)),
        )
    return table


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
