"""Does what pages of the documentation show, each page in a process of its own.

A program for tests/test_docs.py: reads requests as lines of JSON, answers each with a line. A page
runs in a fork, so that what they all need is imported once.
"""

from __future__ import annotations

import contextlib
import doctest
import faulthandler
import io
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import sympy  # noqa: F401  (for all pages, as the rooms of attnc that a first call imports)
import torch
from typer.testing import CliRunner

import attnc.bounds
import attnc.cli.app
import attnc.render.cpp
import attnc.stages
from attnc.runtime import cpu

_TIME = re.compile(r"\d[\d,.]*(?: \w?[sB](?:/s)?\b| GFLOP/s)")
_DECIMAL = re.compile(r"\d+\.\d+")
_EXPECTED_CODE = re.compile(r"#.*exit code (\d)")


def main() -> None:
    """Answers requests until there are no more."""
    faulthandler.enable()
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as answer:
                answer.write(json.dumps(_failure(request)))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            text = answer.read()
        _, status = os.waitpid(child, 0)
        failure = json.loads(text) if text else f"the process ended with status {status}"
        print(json.dumps(failure), flush=True)


def _failure(request: dict[str, Any]) -> str | None:
    """What went wrong at the first step that did; None if none did."""
    os.environ["COLUMNS"] = "100"
    os.chdir(request["folder"])
    sys.path.insert(0, request["folder"])
    cpu.OPTIMIZATION = request["optimization"]
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for message in request["ignored_warnings"]:
        warnings.filterwarnings("ignore", message)
    module = ModuleType("page")
    sys.modules["page"] = module  # dynamo and pickle look functions up in their module
    names = vars(module)
    for step in request["steps"]:
        try:
            told = _told(step, names, request["page"])
        except BaseException:  # noqa: BLE001  (SystemExit too: every failure is the page's)
            told = traceback.format_exc()
        if told is not None:
            return f"{request['page']}:{step['line']}: {told}"
    return None


def _told(step: dict[str, Any], names: dict[str, Any], page: str) -> str | None:
    match step["kind"]:
        case "file":
            Path(step["name"]).write_text(step["text"])
            return None
        case "pycon":
            return _differences_of_session(step["text"], names, page)
        case "python":
            # The blank lines make the numbers of lines in a traceback those of the page.
            code = compile("\n" * (step["line"] - 1) + step["text"], page, "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, names)  # noqa: S102  (that it runs is the claim)
            is_about = step["is_about"]
            return _difference(step["expected"], printed.getvalue(), is_about=is_about)
        case _:
            return _failure_of_command(step["text"], step["expected"])


def _failure_of_command(command: str, expected: str | None) -> str | None:
    output, code = _run(command)
    difference = _difference(expected, output)
    if difference is not None:
        return difference
    stated = _EXPECTED_CODE.search(command)
    # Output that is shown tells of a counterexample itself.
    codes = {int(stated[1])} if stated else {0} if expected is None else {0, 1}
    return None if code in codes else f"`{command}` exits with {code}:\n{output}"


def _run(command: str) -> tuple[str, int]:
    words = shlex.split(command, comments=True)
    is_plain = not {"|", ">", "&&", ";"} & set(words)
    if words[0] == "attnc" and words[1] != "cache" and is_plain:
        result = CliRunner().invoke(attnc.cli.app.app, words[1:], prog_name="attnc")
        unforeseen = result.exception is not None and not isinstance(result.exception, SystemExit)
        if unforeseen and result.exc_info is not None:
            return "".join(traceback.format_exception(*result.exc_info)), -1
        return result.output, result.exit_code
    folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": folder + os.pathsep + os.environ["PATH"]}
    if "cache" in words:
        environment["ATTNC_CACHE_DIR"] = str(Path("cache").resolve())
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    return done.stdout + done.stderr, done.returncode


def _differences_of_session(text: str, names: dict[str, Any], page: str) -> str | None:
    session = doctest.DocTestParser().get_doctest(text, names, page, page, 0)
    found: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=found.append)
    names.update(session.globs)
    return "".join(found) or None


def _difference(expected: str | None, output: str, *, is_about: bool = False) -> str | None:
    """None if the output is as expected: `...` is any text, and times are any times.

    Where ``is_about``, numbers with a point may be off by a fifth.
    """
    if expected is None:
        return None
    shown, printed = _plain(expected), _plain(output)
    is_near = True
    if is_about:
        numbers = zip(_DECIMAL.findall(shown), _DECIMAL.findall(printed), strict=False)
        is_near = all(abs(float(x) - float(y)) <= 0.2 * abs(float(x)) for x, y in numbers)
        shown, printed = _DECIMAL.sub("0.0", shown), _DECIMAL.sub("0.0", printed)
    pattern = ".*".join(map(re.escape, shown.split("...")))
    if is_near and re.fullmatch(pattern, printed, re.DOTALL):
        return None
    return f"expected\n{expected}\nbut it printed\n{output}"


def _plain(text: str) -> str:
    text = _TIME.sub("TIME", text).replace(f"{Path.cwd()}/", "")
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "\n".join(lines)


if __name__ == "__main__":
    main()
