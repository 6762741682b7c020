"""The ``attnc`` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Runs the command with the arguments of this process."""
    from attnc.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        # Pictures have characters that some encodings lack; a question mark beats a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="attnc")
