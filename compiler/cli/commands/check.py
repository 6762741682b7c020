"""What ``attnc check`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import Expression, Target


def check(
    target: Target = None,
    expr: Expression = None,
    expected: Annotated[
        str | None,
        typer.Option(
            help="A second function that it must equal, FILE.py:NAME or module:NAME",
            metavar="TARGET",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(help="Random shapes and inputs to try at the most", min=1)
    ] = 25,
    backend: Annotated[str | None, typer.Option(help="cpu or triton", show_default=False)] = None,
    laws: Annotated[
        str | None,
        typer.Option(
            help="Laws to examine, with commas; no-NAME leaves one out",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    properties: Annotated[
        str | None,
        typer.Option(
            help="What the function promises: causal, rows-nonempty, symmetric, monotone, "
            "in-bounds, equivariant-heads, equivariant-batch",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    dtypes: Annotated[
        str, typer.Option(help="Of q, k, v: float32, bfloat16, float16, float64", metavar="NAMES")
    ] = "float32",
    gradients: Annotated[bool, typer.Option(help="Examine the backward pass")] = True,
    seed: Annotated[
        int | None, typer.Option(help="Choose other random inputs", show_default=False)
    ] = None,
) -> None:
    """Test a function and its kernels by laws, on random shapes and inputs.

    Kernels of both passes against dense attention in float64, tiles, empty rows, and more. Exit
    code 1 where a law is broken, with a counterexample that can be pasted.
    """
    from attnc.cli.check import Options, run

    options = Options(expected, examples, backend, laws, properties, dtypes, gradients, seed)
    raise typer.Exit(run(target, expr, options))
