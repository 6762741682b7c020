"""What ``attnc bench`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import DTypeName, Expression, ShapeText, Target, typed_command


def bench(
    target: Target = None,
    expr: Expression = None,
    shape: ShapeText = None,
    against: Annotated[
        str, typer.Option(help="Peers: flex (compiled), sdpa, or both", metavar="PEERS")
    ] = "flex,sdpa",
    dtype: DTypeName = None,
    kv_heads: Annotated[
        int | None, typer.Option(help="Heads of k and v, if fewer", min=1, show_default=False)
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Time forward and backward together")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="How long to time, compiling not counted", min=0.0)
    ] = 10.0,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; the GPU if there is one", show_default=False),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", help="Write figures", metavar="FILE", show_default=False),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(help="Draw into a PNG", metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """Time a function's kernels against compiled flex_attention and SDPA, in turns.

    Each is compared with float64 first: what is wrong is not timed. Exit code 1 if attnc is.
    """
    from attnc.cli.bench import Options, run

    options = Options(
        shape=shape,
        kv_heads=kv_heads,
        against=against,
        dtype=dtype,
        backward=backward,
        seconds=seconds,
        device=device,
        json=json_file,
        picture=picture,
        command=typed_command(),
    )
    raise typer.Exit(run(target, expr, options))
