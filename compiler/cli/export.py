"""``attnc export``: a module that runs a function's kernels without attnc."""

from __future__ import annotations

import importlib.util
import keyword
import sys
from dataclasses import dataclass
from pathlib import Path

from attnc.cli.console import write
from attnc.cli.options import of_user_code, require_choice
from attnc.cli.target import load_target
from attnc.errors import OptionValueError
from attnc.export import DTYPES, TARGETS, Request, export

_LARGEST_WIDTH = 4096
_IMPORTED = ("torch", "triton", "numpy")  # by the module, or by what it imports


@dataclass(frozen=True)
class Options:
    """The options as typed; see ``attnc export --help``."""

    output: str
    machine: str
    dtype: str | None
    head_dim: int
    value_dim: int | None
    forward_only: bool
    constant_captured: bool
    from_table: bool
    wide_index: bool
    embed: bool
    force: bool
    command: str


def run(target: str | None, expression: str | None, options: Options) -> None:
    """Writes the module, and the file of its larger captured tensors, and says so."""
    require_choice("--target", options.machine, TARGETS)
    if options.dtype is not None:
        require_choice("--dtype", options.dtype, DTYPES)
    for option, width in (("--head-dim", options.head_dim), ("--value-dim", options.value_dim)):
        if width is not None and not 1 <= width <= _LARGEST_WIDTH:
            problem = f"use a number from 1 to {_LARGEST_WIDTH}."
            raise OptionValueError(option=option, value=width, problem=problem)
    _require_parts(options)
    path = _output(options)
    mod = load_target(target, expression)
    request = Request(
        mod,
        target=options.machine,
        dtype=options.dtype,
        head_dim=options.head_dim,
        value_dim=options.value_dim,
        forward_only=options.forward_only,
        constant_captured=options.constant_captured,
        from_table=options.from_table,
        wide_index=options.wide_index,
        command=options.command,
    )
    exported = of_user_code(
        target or "--expr", lambda: export(request, stem=path.stem, embed=options.embed)
    )
    beside = path.with_suffix(".tensors.pt")
    if exported.tensors:
        _require_new(beside, options)
        import torch

        torch.save(exported.tensors, beside)
    path.write_text(exported.text, encoding="utf-8")
    write(f"{path}: {len(exported.text.splitlines())} lines; `python {path}` tests it")
    if exported.tensors:
        names = ", ".join(exported.tensors)
        write(f"{beside}: {names}; keep it beside the module, or export with --embed")


def _output(options: Options) -> Path:
    path = Path(options.output)
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or keyword.iskeyword(stem):
        problem = "name a Python module, such as kernel.py."
        raise OptionValueError(option="--output", value=options.output, problem=problem)
    if not stem.isascii():
        problem = "use letters of ASCII."
        raise OptionValueError(option="--output", value=options.output, problem=problem)
    if stem in sys.stdlib_module_names or stem in _IMPORTED:
        problem = f"a module of this name would hide Python's own {stem}."
        problem = problem if stem not in _IMPORTED else f"it would hide the package {stem}."
        raise OptionValueError(option="--output", value=options.output, problem=problem)
    if not path.parent.is_dir():
        problem = f"there is no folder {path.parent}."
        raise OptionValueError(option="--output", value=options.output, problem=problem)
    _require_new(path, options)
    return path


def _require_new(path: Path, options: Options) -> None:
    if path.exists() and not options.force:
        problem = f"{path} exists; choose another name, or add --force."
        raise OptionValueError(option="--output", value=options.output, problem=problem)


def _require_parts(options: Options) -> None:
    is_gpu = not options.machine.startswith("cpu")
    if is_gpu and importlib.util.find_spec("triton") is None:
        problem = "Triton is not installed. Run `pip install triton`, or choose cpu."
        raise OptionValueError(option="--target", value=options.machine, problem=problem)
    if options.machine == "interpreter" and options.dtype == "bfloat16":
        problem = "Triton's interpreter multiplies bfloat16 wrongly; use float32 or float16."
        raise OptionValueError(option="--dtype", value="bfloat16", problem=problem)
