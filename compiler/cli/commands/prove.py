"""What ``attnc prove`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from attnc.cli.parameters import Expression, Target


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
