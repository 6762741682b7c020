"""What the tests of error texts share; the text a test expects stands in front of it."""

from __future__ import annotations

import functools
import os
import pickle
import re
import shlex
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.main import get_command

import attnc
from attnc.cli.app import app

Q = torch.ones(1, 2, 20, 8)
TABLE = torch.arange(20.0)
covered: set[type] = set()
#: What raises each class, and its text; `docs/errors.md` shows them.
told: dict[type, list[tuple[Callable[..., object], str]]] = defaultdict(list)


def tells(
    error: type[Exception], text: str
) -> Callable[[Callable[..., object]], Callable[..., None]]:
    """What the test does must raise ``error`` (or warn so) with exactly ``text``.

    In it FILE:LINE stands for a line of this file, TMP for the test's folder, ELSEWHERE for
    another temporary one. Errors must come through pickle as they are: so they leave pools of
    processes.
    """
    covered.add(error)

    def decorate(does_wrong: Callable[..., object]) -> Callable[..., None]:
        told[error].append((does_wrong, text))

        @functools.wraps(does_wrong)
        def test(*args: Any, **fixtures: Any) -> None:
            if issubclass(error, Warning):
                with pytest.warns(error) as warned:
                    does_wrong(*args, **fixtures)
                assert len(warned) == 1
                assert normalised(str(warned[0].message), fixtures) == text
                return
            with pytest.raises(error) as caught:
                does_wrong(*args, **fixtures)
            assert type(caught.value) is error
            assert normalised(str(caught.value), fixtures) == text
            copy = pickle.loads(pickle.dumps(caught.value))
            assert type(copy) is error
            assert str(copy) == str(caught.value)

        return test

    return decorate


def normalised(text: str, fixtures: dict[str, Any]) -> str:
    text = re.sub(r"[^\s(]*/test_errors\w*\.py:\d+", "FILE:LINE", text)
    if "tmp_path" in fixtures:
        text = text.replace(str(fixtures["tmp_path"]), "TMP")
    text = re.sub(r"/\S*/attnc-\w+", "ELSEWHERE", text)
    text = re.sub(r"(TMP/c\+\+) .* -o \S+", r"\1 OPTIONS", text)
    return re.sub(r"(?m)(^Traceback.*\n)(?:  .*\n)+", r"\1  ...\n", text)


def attend(**keywords: Any) -> object:
    return attnc.attention(Q, Q, Q, **keywords)


def command(*arguments: str) -> None:
    """Runs ``attnc`` up to where it prints the error; test_cli.py sees to the printing."""
    group = get_command(app)
    with group.make_context("attnc", list(arguments)) as context:
        group.invoke(context)


def in_new_process(program: str, *, wrapped: Callable[[str], list[str]] | None = None) -> None:
    """Raises what ``program`` raises in a process of its own."""
    code = "import pickle, sys\ntry:\n" + textwrap.indent(textwrap.dedent(program), "    ")
    code += "\nexcept Exception as error:\n    sys.stdout.buffer.write(pickle.dumps(error))\n"
    line = [sys.executable, "-c", code]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        wrapped(shlex.join(line)) if wrapped else line,
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    raise pickle.loads(done.stdout)


@attnc.kernel
def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


@attnc.kernel
def decay(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + (kv_idx - q_idx)
