"""A Python file as it was in a revision of git."""

from __future__ import annotations

import linecache
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from attnc.errors import TargetRevisionError


def source_at(path: Path, revision: str) -> str:
    """Content of ``path`` as of ``revision``: a commit, branch, tag or ``HEAD~1``.

    Raises:
        TargetRevisionError: There is no git, repository, revision, or file in it.
    """
    target = f"{path}@{revision}"
    git = shutil.which("git")
    if git is None:
        raise TargetRevisionError(target=target, problem="git is not on the PATH")
    if not path.parent.is_dir():
        raise TargetRevisionError(target=target, problem=f"the folder {path.parent} does not exist")
    if not revision or revision.startswith("-"):
        raise TargetRevisionError(target=target, problem=f"{revision!r} is no revision")
    command = [git, "-C", str(path.parent), "show", f"{revision}:./{path.name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0].removeprefix("fatal: ").rstrip(".")
        raise TargetRevisionError(target=target, problem=f"git says: {said}")
    return done.stdout


class _Revision(ExecutionLoader):
    """Gives Python the source of one module."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_filename(self, fullname: str) -> str:
        return self._name


def module_at(path: Path, revision: str) -> tuple[ModuleType, Callable[[], None]]:
    """The module of ``path`` as of ``revision``, and what runs its code.

    Raises:
        TargetRevisionError: See ``source_at``.
    """
    source, name = source_at(path, revision), f"{path}@{revision}"
    # Errors and traced lines show the source of that revision.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    # As when Python runs the file: modules beside it can be imported, as they are now.
    sys.path.insert(0, str(path.parent.resolve()))
    loader = _Revision(name, source)
    spec = spec_from_loader(f"{path.stem}@{revision}", loader, origin=name)
    assert spec is not None
    module = module_from_spec(spec)
    return module, lambda: loader.exec_module(module)
