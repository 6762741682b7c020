"""From what is typed on the command line to a function: a name in a file, module or the library."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attnc.errors import (
    AttncError,
    TargetChoiceError,
    TargetCodeError,
    TargetKindError,
    TargetMissingError,
    TargetNameError,
    TargetSyntaxError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attnc.library import Entry

#: What targets in ``attnc.library`` begin with.
LIBRARY = "library:"


def load_target(target: str | None, expression: str | None) -> Callable[..., Any]:
    """The function that the command line names.

    Args:
        target: FILE.py:NAME or module:NAME, where NAME may have dots; FILE.py@REVISION:NAME for the
            file as it was in a revision of git; library:NAME for the example
            of an entry of ``attnc.library``; library:EXPRESSION for what an expression in its names
            gives, as ``library:causal() & sliding_window(100)``.
        expression: Source of a lambda, in place of ``target``. It may use ``torch``, ``math`` and
            ``attnc``.

    Raises:
        CommandLineError: There is none; the subclass tells why.
        ModSignatureError: It has neither 4 nor 5 parameters.
    """
    from attnc.mods import mod_kind

    if target is not None and expression is not None:
        raise TargetChoiceError(given=f"both {target} and --expr were given")
    if target is not None:
        name, value = target, _named(target)
    elif expression is None:
        raise TargetChoiceError(given="no function was given")
    else:
        name = f"--expr {expression!r}"
        value = _evaluated(expression, name, "<--expr>", {})
    if not callable(value) or isinstance(value, type):
        raise TargetKindError(target=name, got=_described(value))
    mod_kind(value)
    mod: Callable[..., Any] = value
    return mod


def library_entry(target: str | None) -> Entry | None:
    """The entry of the library whose example ``target`` names, as library:NAME or just NAME."""
    if target is None or (":" in target and not target.startswith(LIBRARY)):
        return None
    from attnc.library import ENTRIES

    return ENTRIES.get(target.removeprefix(LIBRARY).strip())


def _of_library(target: str) -> Any:
    """The example of an entry, or the value of an expression."""
    from attnc import library

    entry = library_entry(target)
    if entry is not None:
        return entry.kernel()
    text = target.removeprefix(LIBRARY).strip()
    if not text or text.isidentifier():
        close = difflib.get_close_matches(text, library.ENTRIES, n=3)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        raise TargetNameError(
            place="library", name=text, instead=f"{meant}`attnc show --list` names all entries."
        )
    names = {name: getattr(library, name) for name in library.__all__}
    return _evaluated(text, target, "<library>", names)


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, ModuleType):
        return "a module"
    return f"of class {type(value).__name__}"


def _named(target: str) -> Any:
    if target.startswith(LIBRARY):
        return _of_library(target)
    entry = library_entry(target)
    if entry is not None:
        return entry.kernel()
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetSyntaxError(target=target)
    module = _module_at(place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise TargetNameError(place=place, name=name, instead=_near(part, value))
        value = getattr(value, part)
    return value


def _module_at(place: str) -> ModuleType:
    """What FILE.py, FILE.py@REVISION or a module's name stands for."""
    stem, is_old, revision = place.rpartition(".py@")
    if is_old and not Path(place).is_file():
        return _old_module(Path(f"{stem}.py"), revision)
    is_file = place.endswith(".py") or "/" in place
    return _file_module(Path(place)) if is_file else _module(place)


def _near(name: str, owner: Any) -> str:
    """Names in ``owner`` that may have been meant: the similar ones, else all mods."""
    names = [n for n in vars(owner) if not n.startswith("_")]
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    mods = [n for n in names if _is_mod(getattr(owner, n))]
    return f"Functions over indices there: {', '.join(mods)}." if mods else "It defines no mod."


def _is_mod(value: Any) -> bool:
    from attnc.mods import mod_kind

    if not callable(value) or isinstance(value, type):
        return False
    try:
        mod_kind(value)
    except AttncError:
        return False
    return True


def _file_module(path: Path) -> ModuleType:
    if path.is_dir():
        raise TargetMissingError(place=path, instead=" as a file; it is a folder.")
    if not path.is_file():
        raise TargetMissingError(place=path, instead=_near_file(path))
    # As when Python runs the file: modules beside it can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    name = path.stem if path.stem not in sys.modules else f"attnc_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetMissingError(place=path, instead=" as a Python file. Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _user_code(str(path), path.resolve()):
        spec.loader.exec_module(module)
    return module


def _old_module(path: Path, revision: str) -> ModuleType:
    from attnc.cli.revision import module_at

    module, run = module_at(path, revision)
    with _user_code(f"{path}@{revision}", None):
        run()
    return module


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does the folder {path.parent}."
    names: Iterable[str] = (p.name for p in path.parent.iterdir() if p.suffix == ".py")
    close = difflib.get_close_matches(path.name, sorted(names), n=3)
    return f". Did you mean {' or '.join(str(path.parent / n) for n in close)}?" if close else "."


def _module(name: str) -> ModuleType:
    # The console script leaves the current folder out of the path; python -m has it.
    sys.path.insert(0, str(Path.cwd()))
    with _user_code(f"module {name}", None):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            instead = " as a module. For a file write FILE.py:NAME."
            raise TargetMissingError(place=name, instead=instead) from error


def _evaluated(expression: str, place: str, file: str, names: dict[str, Any]) -> Any:
    """Value of an expression in ``torch``, ``math``, ``attnc`` and ``names``.

    Args:
        expression: What was typed.
        place: What errors call it.
        file: What stands for its file in the locations of code.
        names: More names, with their values.
    """
    import math

    import torch

    import attnc

    # Python asks linecache for source; errors then show the text of the expression.
    lines = [f"{line}\n" for line in expression.splitlines()]
    linecache.cache[file] = (len(expression), None, lines, file)
    with _user_code(place, None):
        code = compile(expression.strip(), file, "eval")
        return eval(code, {"torch": torch, "math": math, "attnc": attnc, **names})


@contextmanager
def _user_code(place: str, path: Path | None) -> Iterator[None]:
    """Turns what the user's code raises while it is loaded into one line."""
    try:
        yield
    except AttncError:
        raise
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "unknown line"
        source = (error.text or "").strip()
        told = f"{error.msg} in {where}" + (f", `{source}`." if source else ".")
        raise TargetCodeError(place=place, error=told) from error
    except (Exception, SystemExit) as error:
        raise TargetCodeError(place=place, error=f"{raised(error)}.") from error


def raised(error: BaseException) -> str:
    """An exception on one line: class, message, and the innermost line outside of libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = (str(Path(__file__).parent.parent), "<frozen", sys.prefix, sys.base_prefix)
    own = [f for f in frames if not f.filename.startswith(packages)]
    where = f" in {own[-1].filename}:{own[-1].lineno}, `{own[-1].line}`" if own else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}{where}" if message else type(error).__name__ + where
