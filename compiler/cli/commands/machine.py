"""What the commands about this machine and its caches take."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure what expected times are computed from, anew"),
    ] = False,
) -> None:
    """Test what attnc needs from this machine; say what is missing and how to get it.

    Exit code 1 if something fails.
    """
    from attnc.cli.doctor import run

    raise typer.Exit(run(calibrate))


def demo(
    sentences: Annotated[int, typer.Option(help="How many sentences to embed", min=2)] = 300,
) -> None:
    """Embed real sentences with a pretrained model through attnc, and compare."""
    from attnc.cli.demo import main

    raise typer.Exit(main(sentences))


def cache_info() -> None:
    """Where compiled kernels are kept, how many, and how large they are."""
    from attnc.cli.cache import info

    info()


def cache_clear() -> None:
    """Remove all compiled kernels. They are built again when needed."""
    from attnc.cli.cache import clear

    clear()
