"""What ``attnc show`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import Expression, ShapeText, Target


def show(
    target: Target = None,
    expr: Expression = None,
    shape: ShapeText = None,
    block: Annotated[int, typer.Option(help="Queries and keys per tile", metavar="TOKENS")] = 64,
    batch: Annotated[int, typer.Option("--batch", help="Which batch")] = 0,
    head: Annotated[
        int | None,
        typer.Option("--head", help="Which head; 0, or 0 to 3 in files, if left out"),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(help="Explain one tile instead", metavar="ROW,COLUMN", show_default=False),
    ] = None,
    png: Annotated[
        str | None,
        typer.Option("--png", help="Draw into a PNG", metavar="FILE", show_default=False),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", help="Draw into an HTML page", metavar="FILE", show_default=False),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Name all that library: has")] = False,
) -> None:
    """Draw a mask or a score.

    Masks by the classes of their tiles, pair by pair where both lengths are 64 at the most;
    scores by what they make of a score.
    """
    from attnc.cli.show import Request, run, write_names

    if names or target == "library:":
        write_names()
        return
    run(Request(target, expr, shape, block, batch, head), why, png, html)
