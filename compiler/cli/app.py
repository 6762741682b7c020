"""The commands and their options. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from attnc.cli.console import write_error
from attnc.errors import AttncError

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


class _Commands(TyperGroup):
    """Wrong input ends in one line on standard error and exit code 2, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except AttncError as error:
            write_error(str(error))
            code = 2
        except MemoryError as error:
            write_error(f"memory is short: {error}. Use smaller numbers in --shape.")
            code = 2
        except OSError as error:  # a full disk, a folder without permission
            write_error(f"{error}.")
            code = 2
        except Exception as error:
            # Typer carries a copy of click or imports it, by version: both have this method.
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "attnc"
            if message := error.format_message():  # none where the help was printed instead
                write_error(f"{message.rstrip('.')}. See `{path} --help`.")
            code = 2
        sys.exit(code or 0)


app = typer.Typer(
    cls=_Commands,
    help="Compile attention score and mask functions to block-sparse kernels, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache = typer.Typer(help="The disk cache of compiled kernels.", no_args_is_help=True)
app.add_typer(cache, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        import attnc

        print(f"attnc {attnc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16 or float64; float32 on CPUs, else bfloat16",
            show_default=False,
        ),
    ] = None,
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


@app.command()
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


@app.command()
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


@app.command()
def prove(
    target: Target = None,
    expr: Expression = None,
    causal: Annotated[bool, typer.Option("--causal", help="No query sees a later key")] = False,
    rows_nonempty: Annotated[
        bool, typer.Option("--rows-nonempty", help="Every query sees a key")
    ] = False,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="i sees j exactly if j sees i")
    ] = False,
    monotone: Annotated[
        bool, typer.Option("--monotone", help="A key, once seen, is seen by all later queries")
    ] = False,
    in_bounds: Annotated[
        bool, typer.Option("--in-bounds", help="No captured tensor is read out of its bounds")
    ] = False,
    implies: Annotated[
        str | None,
        typer.Option(help="All it shows, OTHER shows", metavar="OTHER", show_default=False),
    ] = None,
    equal: Annotated[
        str | None,
        typer.Option(help="It shows what OTHER shows", metavar="OTHER", show_default=False),
    ] = None,
    q_len: Annotated[
        int | None,
        typer.Option(
            help="Queries; 1024 or as the library's example, if left out", metavar="TOKENS"
        ),
    ] = None,
    kv_len: Annotated[
        int | None,
        typer.Option(help="Keys; as many as queries, if left out", metavar="TOKENS"),
    ] = None,
    b: Annotated[int | None, typer.Option("--b", help="Batches; 1, if left out")] = None,
    h: Annotated[int | None, typer.Option("--h", help="Query heads; 1, if left out")] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Pairs to evaluate at the most; 134,217,728, if left out", min=0),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Prove properties of a mask, or refute them with a pair that shows it.

    Exit code 0 if all hold, 1 if one is refuted, 3 if none is but one is undecided.
    """
    from attnc.cli.options import lengths_for
    from attnc.cli.prove import Wanted, run

    named = {
        "causal": causal,
        "rows_nonempty": rows_nonempty,
        "symmetric": symmetric,
        "monotone": monotone,
        "in_bounds": in_bounds,
    }
    wanted = [Wanted(name) for name, is_wanted in named.items() if is_wanted]
    compared = {"implies": implies, "equal": equal}
    wanted += [Wanted(name, other) for name, other in compared.items() if other is not None]
    sizes = {"Q_LEN": q_len, "KV_LEN": kv_len, "B": b, "H": h, "budget": budget}
    given = lengths_for(target, sizes)
    raise typer.Exit(run(target, expr, wanted, given, as_json))


@app.command()
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
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16 or float64; float32 on CPUs, else bfloat16",
            show_default=False,
        ),
    ] = None,
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
    import shlex

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
        command=shlex.join(["attnc", *sys.argv[1:]]),
    )
    run(target, expr, options)


@app.command()
def bench(
    target: Target = None,
    expr: Expression = None,
    shape: ShapeText = None,
    against: Annotated[
        str, typer.Option(help="Peers: flex (compiled), sdpa, or both", metavar="PEERS")
    ] = "flex,sdpa",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16 or float64; float32 on CPUs, else bfloat16",
            show_default=False,
        ),
    ] = None,
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
    import shlex

    from attnc.cli.bench import Options, run

    command = shlex.join(["attnc", *sys.argv[1:]])
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
        command=command,
    )
    raise typer.Exit(run(target, expr, options))


@app.command()
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


@app.command()
def demo(
    sentences: Annotated[int, typer.Option(help="How many sentences to embed", min=2)] = 300,
) -> None:
    """Embed real sentences with a pretrained model through attnc, and compare."""
    from attnc.cli.demo import main

    raise typer.Exit(main(sentences))


@cache.command("info")
def cache_info() -> None:
    """Where compiled kernels are kept, how many, and how large they are."""
    from attnc.cli.cache import info

    info()


@cache.command("clear")
def cache_clear() -> None:
    """Remove all compiled kernels. They are built again when needed."""
    from attnc.cli.cache import clear

    clear()
