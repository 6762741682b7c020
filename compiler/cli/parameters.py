"""Arguments and options that several commands take."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

_TARGET = "FILE.py:NAME, module:NAME or library:NAME, a Kernel, mask_mod or score_mod"

Target = Annotated[str | None, typer.Argument(help=_TARGET, show_default=False)]
Expression = Annotated[
    str | None,
    typer.Option(
        "--expr",
        help="A lambda in place of TARGET: 'lambda b, h, q, kv: q >= kv'",
        metavar="LAMBDA",
        show_default=False,
    ),
]
ShapeText = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Sizes of the call; 1,1,1024,1024,64 or those of the library's example, if left out",
        metavar="B,H,Lq,Lk,D",
        show_default=False,
    ),
]
DTypeName = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32, bfloat16, float16 or float64; float32 on CPUs, else bfloat16",
        show_default=False,
    ),
]


def typed_command() -> str:
    """The command line of this process, as a shell reads it."""
    return shlex.join(["attnc", *sys.argv[1:]])
