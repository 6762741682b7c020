"""Processes that build kernels: none outlives the time it has, or whoever waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnc.runtime.forks import closed_in_forks, forks_pass

# Runs a command in a group of processes that ends with standard input: with the process at the
# other end of that pipe, even if it is killed. Without it compilers that hang would be left over.
# The code is printed: whoever ignores SIGCHLD, as some servers do, is told 0 for every process.
_WATCH = """
exec 3<&0
"$@" </dev/null 3<&- &
command=$!
{ read -r _; kill -s KILL 0; } <&3 >/dev/null 2>&1 &
watcher=$!
wait "$command"
code=$?
kill "$watcher"
printf '\n%d' "$code"
"""


@dataclass(frozen=True)
class Finished:
    """How a process ended; a signal is a code of 128 and more, as shells say it."""

    code: int
    output: str
    errors: str


def run_process(
    command: Sequence[str], *, folder: Path, time_limit: float, environment: Mapping[str, str]
) -> Finished:
    """Runs ``command`` in ``folder``, where its temporary files go too.

    It and all that it starts are killed when the time is over, when this call is interrupted, or
    when this process ends in any way.

    Args:
        time_limit: In seconds.
        environment: All variables but TMPDIR.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``time_limit``.
        OSError: It cannot be started.
    """
    watched, lifeline = os.pipe()
    with closed_in_forks(lifeline), forks_pass():
        with os.fdopen(watched, "rb", buffering=0) as pipe:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "sh", *command],
                stdin=pipe,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={**environment, "TMPDIR": str(folder)},
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        with process:
            try:
                output, errors = process.communicate(timeout=time_limit)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
    output, _, code = output.rpartition("\n")
    return Finished(int(code) if code.isdecimal() else process.returncode or 1, output, errors)
