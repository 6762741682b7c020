"""What ``attnc inspect`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import DTypeName, Expression, ShapeText, Target


def inspect(
    target: Target = None,
    other: Annotated[
        str | None,
        typer.Argument(help="With --diff: what TARGET is compared with", show_default=False),
    ] = None,
    expr: Expression = None,
    stage: Annotated[
        str,
        typer.Option(
            help="traced, traced-ir, ir, math, derivative, blocks, plan, cpp, triton, ttir, ptx, "
            "sass, assembly, resources, or all",
            metavar="STAGE",
        ),
    ] = "all",
    shape: ShapeText = None,
    machine: Annotated[
        str,
        typer.Option(
            "--target",
            help="cpu, triton (the GPU of this machine), sm_80, sm_90, sm_100, gfx942",
            metavar="MACHINE",
        ),
    ] = "cpu",
    dtype: DTypeName = None,
    passes: Annotated[
        str,
        typer.Option(
            "--pass", help="Kernels of which pass: forward, backward or all", metavar="PASS"
        ),
    ] = "all",
    diff: Annotated[
        bool, typer.Option("--diff", help="Compare two functions: inspect --diff A B")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html",
            help="Write stages, the mask and what it costs into one HTML page instead",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print what attnc makes of a function, stage by stage, down to the machine code.

    With --diff print what differs between two; exit code 0 if nothing does, 1 if something does.
    FILE.py@REVISION:NAME is a function as it was in a revision of git.
    """
    if html is not None and (diff or as_json):
        raise typer.BadParameter(
            f"a page holds neither; leave out {'--diff' if diff else '--json'}", param_hint="--html"
        )
    if diff:
        from attnc.cli.compare import run as compare

        if expr is not None:
            raise typer.BadParameter("write the lambda in place of A or B", param_hint="--expr")
        raise typer.Exit(compare(target, other, stage, shape, machine, dtype, passes, as_json))
    if other is not None:
        raise typer.BadParameter("two functions need --diff", param_hint="OTHER")
    if html is not None:
        from attnc.cli.report import run as report

        report(target, expr, html, stage, shape, machine, dtype, passes)
        return
    from attnc.cli.inspect import run

    run(target, expr, stage, shape, machine, dtype, passes, as_json)
