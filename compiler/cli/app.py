"""The command ``attnc``, made of its commands. What one needs is imported when it runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from attnc.cli.commands.bench import bench
from attnc.cli.commands.check import check
from attnc.cli.commands.export import export
from attnc.cli.commands.inspect import inspect
from attnc.cli.commands.machine import cache_clear, cache_info, demo, doctor
from attnc.cli.commands.prove import prove
from attnc.cli.commands.show import show
from attnc.cli.console import write_error
from attnc.errors import AttncError


class _Commands(TyperGroup):
    """Wrong input ends in one line on standard error and exit code 2, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except AttncError as error:
            write_error(str(error))
            code = 2
        except MemoryError as error:
            write_error(_no_memory(error))
            code = 2
        except OSError as error:  # a full disk, a folder without permission
            write_error(f"{error}.")
            code = 2
        except Exception as error:
            if "allocate memory" in str(error) or "out of memory" in str(error):  # PyTorch's
                write_error(_no_memory(error))
                sys.exit(2)
            # Typer carries a copy of click or imports it, by version: both have this method.
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "attnc"
            if message := error.format_message():  # none where the help was printed instead
                write_error(f"{message.rstrip('.')}. See `{path} --help`.")
            code = 2
        sys.exit(code or 0)


def _no_memory(error: Exception) -> str:
    said = str(error).splitlines()[0].removesuffix(".") if str(error) else "no more is to be had"
    return f"memory is short: {said}. Use smaller numbers in --shape."


app = typer.Typer(
    cls=_Commands,
    help="Compile attention score and mask functions to block-sparse kernels, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (inspect, show, check, prove, export, bench, doctor, demo):
    app.command()(_command)
_cache = typer.Typer(help="The disk cache of compiled kernels.", no_args_is_help=True)
_cache.command("info")(cache_info)
_cache.command("clear")(cache_clear)
app.add_typer(_cache, name="cache")


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
