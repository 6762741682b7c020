"""Programs in processes of their own, for tests that kill, stop or fork them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attnc.runtime.build import find_compiler

#: Prepared in a program below: ``store``, ``digest``, ``content``, ``writes``.
CACHE = """
import hashlib, os, signal, sys, tempfile, warnings
from pathlib import Path
from attnc.errors import *
from attnc.runtime import cache
from attnc.runtime.cache import DiskCache
from attnc.runtime import leftovers, locks  # another user may not read this installation

def digest(name):
    return hashlib.sha256(name.encode()).hexdigest()

def writes(name, size=100):
    def build(folder):
        (folder / "source").write_text(name)
        (folder / "binary").write_bytes(name.encode() * size)
    return build

def content(entry):
    return (entry.folder / "source").read_text()

root = Path(sys.argv[1])
"""


def start(
    program: str, *arguments: object, environment: Mapping[str, str | None] | None = None
) -> subprocess.Popen[str]:
    """A Python process that runs ``program``; None in ``environment`` takes a variable away."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509  (it takes no lock)
    )


def _heed_interrupts() -> None:
    # Shells have what they run in the background ignore them, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def output_of(
    program: str, *arguments: object, environment: Mapping[str, str | None] | None = None
) -> str:
    """What such a program prints; it must end well, and within a minute."""
    with start(program, *arguments, environment=environment) as process:
        try:
            output, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, errors
    return output


def program_with_cache(body: str) -> str:
    """``CACHE`` followed by ``body``."""
    return CACHE + textwrap.dedent(body)


def script(path: Path, text: str) -> str:
    """A program of that text for the shell; its time stands still, as that of one compiler does."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    os.utime(path, (1, 1))
    return str(path)


def quick_compiler(folder: Path, before: str = "") -> str:
    """A C++ compiler that does not optimize, and runs ``before`` first."""
    return script(folder / "quick", f"{before}\nexec '{find_compiler().command[0]}' \"$@\" -O0")


def hanging_compiler(folder: Path) -> tuple[str, Path]:
    """One that hangs in a process of its own, as g++ does, and the file with both numbers."""
    numbers = folder / "numbers"
    command = f"sleep 300 & echo $$ $! > '{numbers}.new'; mv '{numbers}.new' '{numbers}'; wait"
    return script(folder / "hangs", command), numbers


def becomes(is_so: Callable[[], object], seconds: float = 10.0) -> bool:
    """Whether that is so within some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.01)
    return bool(is_so())


def is_alive(number: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def can_mount() -> bool:
    """Whether a process here may mount file systems, in a namespace of its own."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return os.geteuid() == 0 and not subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        return False


def in_mount(folder: Path, options: str, program: str, *arguments: object) -> str:
    """What ``program`` prints where ``folder`` is a file system in memory with these options."""
    script = f'mount -t tmpfs -o mode=700,{options} tmpfs "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, str(folder)]
    command += [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    """Sends the signal and waits until the process is gone."""
    process.send_signal(how)
    process.communicate(timeout=30)
