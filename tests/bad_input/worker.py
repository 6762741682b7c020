"""A child process that runs Python source and tells what came of it.

A call may crash or hang: then the child is replaced, and the next call goes on. What is run is
text, so that a failure is its own reproduction. Without arguments the module is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Self

_MEMORY = 6 << 30  # bytes of address space: a call that takes all of a machine's is a failure too


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    ``kind``: "done", "attnc error", "other error", "crash" or "hang". ``what``: the class of an error,
    the signal of a crash, or the repr of ``result``. ``where``: the end of the traceback.
    """

    kind: str
    what: str = ""
    message: str = ""
    where: str = ""


class Worker:
    """Runs programs one after another, each ``seconds`` at most, in a child with ``preamble`` run."""

    def __init__(self, preamble: str = "", seconds: float = 60.0) -> None:
        self.preamble, self.seconds = preamble, seconds
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, program: str) -> Outcome:
        """What came of ``program``, whose value is what it assigns to ``result``."""
        if self._child is None:
            self._child = _started()
            began = self._answer(self.preamble, max(self.seconds, 60.0))
            assert began.kind == "done", began
        return self._answer(program, self.seconds)

    def _answer(self, program: str, seconds: float) -> Outcome:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(program).encode() + b"\n")
        child.stdin.flush()
        if not select.select([child.stdout], [], [], seconds)[0]:
            self.close()
            return Outcome("hang", f"{seconds} s")
        line = child.stdout.readline()
        if line:
            return Outcome(**json.loads(line))
        code = child.wait()
        self.close()
        return Outcome("crash", f"exit {code}")

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _started() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-P", __file__],  # no module here hides another
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _outcome(program: str, names: dict[str, Any]) -> Outcome:
    from attnc.errors import AttncError

    names.pop("result", None)
    try:
        exec(compile(program, "<program>", "exec"), names)  # noqa: S102  (its purpose)
        return Outcome("done", repr(names.get("result"))[:200])
    except AttncError as error:
        return Outcome("attnc error", type(error).__name__, str(error), _where(error))
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is the outcome)
        return Outcome("other error", type(error).__name__, str(error)[:300], _where(error))


def _where(error: BaseException) -> str:
    places, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        folder, _, file = code.co_filename.rpartition("/")
        places.append(f"{folder.rpartition('/')[2]}/{file}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-6:]))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what programs print is no answer
    names: dict[str, Any] = {}
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            print(json.dumps(vars(_outcome(json.loads(line), names))), file=answers, flush=True)


if __name__ == "__main__":
    main()
