"""What ``attnc export`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import DTypeName, Expression, Target, typed_command


def export(
    target: Target = None,
    expr: Expression = None,
    output: Annotated[
        str, typer.Option("-o", "--output", help="The module to write", metavar="FILE.py")
    ] = "kernel.py",
    machine: Annotated[
        str,
        typer.Option(
            "--target",
            help="cpu, cpu-avx512, cpu-avx2, cpu-generic: C++; triton (the GPU of this machine), "
            "sm_80, sm_90, sm_100, gfx942, interpreter: Triton",
            metavar="MACHINE",
        ),
    ] = "cpu",
    dtype: DTypeName = None,
    head_dim: Annotated[int, typer.Option(help="Width of q and k")] = 64,
    value_dim: Annotated[
        int | None, typer.Option(help="Width of v; that of q, if left out", show_default=False)
    ] = None,
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Leave gradients out")
    ] = False,
    constant_captured: Annotated[
        bool, typer.Option("--constant-captured", help="Leave gradients of captured tensors out")
    ] = False,
    table: Annotated[
        bool,
        typer.Option("--table", help="Find tiles at run time although loop bounds are formulas"),
    ] = False,
    wide_index: Annotated[
        bool, typer.Option("--wide-index", help="For tensors of 2**31 elements and more")
    ] = False,
    embed: Annotated[
        bool, typer.Option("--embed", help="Keep large captured tensors in the module too")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files")] = False,
) -> None:
    """Write a Python module with a function's kernels that needs torch, but not attnc.

    Triton, or C++ with its loader; forward and backward. Captured tensors become arguments, with
    the values they have now where they are left out. `python kernel.py` tests it.
    """
    from attnc.cli.export import Options, run

    options = Options(
        output=output,
        machine=machine,
        dtype=dtype,
        head_dim=head_dim,
        value_dim=value_dim,
        forward_only=forward_only,
        constant_captured=constant_captured,
        from_table=table,
        wide_index=wide_index,
        embed=embed,
        force=force,
        command=typed_command(),
    )
    run(target, expr, options)
