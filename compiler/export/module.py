"""The text of an exported module."""

from __future__ import annotations

import ast
import base64
import io
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jinja2
import torch

from attnc.errors import NotExportableError
from attnc.export.kernels import Captured, cpp_kernels, triton_kernels
from attnc.export.names import plain, source_lines
from attnc.export.request import LARGEST_INTEGER, LARGEST_LENGTH, Request
from attnc.export.torch_text import torch_text
from attnc.ir import B_IDX, H_IDX, slots_of, walk
from attnc.mods import mod_name
from attnc.target import CpuTarget

#: Captured tensors of at most so many numbers are written as literals.
LITERAL_SIZE = 64


@dataclass(frozen=True)
class Exported:
    """A module that stands alone.

    Attributes:
        text: Its source.
        tensors: Captured tensors that belong into a file beside it, by name.
    """

    text: str
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Argument:
    """A captured tensor as the template sees it."""

    name: str
    storage: str
    rank: int
    literal: str


@dataclass(frozen=True)
class _Number:
    """A lifted constant: as an int64, as a float64 (one of them 0), and as it is."""

    integer: str
    real: str
    value: str


def export(request: Request, *, stem: str = "kernel", embed: bool = False) -> Exported:
    """A module with the kernels of ``request`` and all that running them takes.

    Args:
        request: What is exported.
        stem: Name of the module, an identifier; larger captured tensors go into
            ``{stem}.tensors.pt`` beside it.
        embed: They go into the module.

    Raises:
        NotExportableError: What is asked cannot stand alone, or gradients would be lost.
        TraceError: The function does something a kernel cannot do.
    """
    if not stem.isidentifier():
        raise NotExportableError(
            name=mod_name(request.mod), problem=f"stem={stem!r} cannot be imported: name a module"
        )
    _require_gradients(request)
    first = _rendered(request, request.names(()), stem, embed)
    # Arguments must not hide what the module itself calls by these names.
    names = request.names(_names_of(first.text))
    return first if names == request.names(()) else _rendered(request, names, stem, embed)


def _require_gradients(request: Request) -> None:
    if not request.constant_captured:
        return
    learned = [
        slot for slot in request.differentiable if request.program.tensors[slot].requires_grad
    ]
    if learned:
        names = ", ".join(request.names(())[slot] for slot in learned)
        raise NotExportableError(
            name=mod_name(request.mod),
            problem=f"{names} requires grad, and --constant-captured leaves its gradient out. "
            "Leave that option out, or detach the tensor",
        )


def _rendered(request: Request, names: dict[int, str], stem: str, embed: bool) -> Exported:
    tensors = {names[slot]: _stored(request.program.tensors[slot]) for slot in request.slots}
    literals = {name: _literal(tensor) for name, tensor in tensors.items()}
    large = {name: tensor for name, tensor in tensors.items() if not literals[name]}
    captured = Captured(
        {slot: place for place, slot in enumerate(request.slots)},
        names,
        request.program.lifted.values,
    )
    variables = _variables(request, captured, literals)
    if isinstance(request.machine, CpuTarget):
        cpp = cpp_kernels(request.specs(), captured)
        assert '"""' not in cpp.source
        variables |= {"cpp": cpp, "uses_table": cpp.uses_table, "needs": "a C++ compiler"}
    else:
        kernels = triton_kernels(request.specs(), captured)
        needs = "triton" if request.target != "interpreter" else "triton, with TRITON_INTERPRET=1"
        variables |= {"triton": kernels, "uses_table": kernels.uses_table, "needs": needs}
    variables["tiles_text"] = _tiles_text(request, variables["uses_table"])
    variables |= {
        "stem": stem,
        "in_file": f"{stem}.tensors.pt" if large and not embed else "",
        "embedded": _embedded(large) if large and embed else [],
    }
    text = _environment().get_template("export/module.py.jinja").render(variables)
    return Exported(_with_imports(text), {} if embed else large)


def _variables(request: Request, captured: Captured, literals: dict[str, str]) -> dict[str, Any]:
    program = request.program
    mask, score = program.mask, request.exact_program.score
    texts = [None if expr is None else torch_text(expr, captured.names) for expr in (mask, score)]
    places = [captured.places[slot] for slot in request.differentiable]
    gives = () if request.constant_captured else tuple(places)
    read = () if mask is None else tuple(captured.places[slot] for slot in slots_of(mask))
    nodes = set() if mask is None else set(walk(mask))
    arguments = [
        _Argument(name, program.slots[slot].storage, program.slots[slot].rank, literals[name])
        for slot, name in captured.names.items()
    ]
    called = [arguments[place].name for place in gives]
    numbers = zip(program.lifted.dtypes, program.lifted.values, strict=True)
    return {
        "title": f"Attention for {plain(mod_name(request.mod))}, as {request.machine.name} kernels.",
        "version": version("attnc"),
        "torch_version": torch.__version__,
        "command": plain(request.command),
        "source_lines": ["What was compiled:", "", *source_lines((request.mask, request.score))],
        "dtype": request.storage,
        "head_dim": request.head_dim,
        "value_dim": request.value_width,
        "scale": repr(request.scale),
        "captured": arguments,
        "literal_size": LITERAL_SIZE,
        "differentiates": not request.forward_only,
        "differentiable": gives,
        "not_differentiated": tuple(places) if request.constant_captured else (),
        "flows": "".join(f", {name}" for name in called),
        "gradients_text": _gradients_text(request, called),
        "is_live": request.is_live,
        "mask_text": texts[0],
        "score_text": texts[1],
        "calls": frozenset().union(*(text.calls for text in texts if text is not None)),
        "reads_b": B_IDX in nodes,
        "reads_h": H_IDX in nodes,
        "read": read,
        "small": tuple(captured.places[slot] for slot in request.small or ()),
        "largest_length": LARGEST_LENGTH,
        "largest_integer": LARGEST_INTEGER,
        "wide_index": request.wide_index,
        "tolerance": tolerance_of(request.storage),
        "params": [_number(dtype.is_float, value) for dtype, value in numbers],
    }


def tolerance_of(dtype: str) -> float:
    """Largest difference from float64 that the own test allows, as a part of the largest value."""
    eps = torch.finfo(getattr(torch, dtype)).eps
    # Halves are rounded on the way (weights, scores' gradients); others accumulate as they are.
    return float(f"{(8 if dtype in ('bfloat16', 'float16') else 512) * eps:.1e}")


def _gradients_text(request: Request, called: Iterable[str]) -> str:
    if request.forward_only:
        return "Forward only: inputs that require grad are refused."
    return f"Gradients: of {', '.join(['q', 'k', 'v', *called])}."


def _tiles_text(request: Request, uses_table: bool) -> str:
    if request.program.mask is None:
        return "Every key is visible: the loops go over all tiles."
    if not uses_table:
        return (
            "The mask's loop bounds are formulas in the kernels: tiles of which no pair is visible "
            "cost nothing.\nNo table is needed, whatever the lengths."
        )
    return (
        "Which tiles a kernel visits is found at run time by evaluating the mask at every pair of "
        "positions: as\nmuch time as a dense mask takes, in bounded memory. It is kept while lengths "
        "and captured tensors stay\nthe same. (attnc itself finds tiles by analysis, far faster.)"
    )


def _number(is_float: bool, value: float) -> _Number:
    text = repr(value)
    if is_float and text in ("inf", "-inf", "nan"):
        text = f'float("{text}")'
    return _Number("0" if is_float else str(int(value)), text if is_float else "0.0", text)


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _literal(tensor: torch.Tensor) -> str:
    """The numbers of a small tensor; "" of others."""
    if tensor.numel() > LITERAL_SIZE or 0 in tensor.shape or not tensor.isfinite().all():
        return ""
    return repr(tensor.tolist())


def _embedded(tensors: dict[str, torch.Tensor]) -> list[str]:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return textwrap.wrap(base64.b64encode(buffer.getvalue()).decode(), 88)


_MODULES = (
    "atexit",
    "base64",
    "contextlib",
    "ctypes",
    "functools",
    "hashlib",
    "io",
    "itertools",
    "os",
    "shlex",
    "shutil",
    "signal",
    "struct",
    "subprocess",
    "tempfile",
)


def _with_imports(text: str) -> str:
    """``text`` with the modules imported that it reads, and no other."""
    read = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    lines = [f"import {name}" for name in _MODULES if name in read]
    lines += ["from pathlib import Path"] if "Path" in read else []
    lines += ["from typing import NamedTuple"] if "NamedTuple" in read else []
    return text.replace("# imports\n", "\n".join(lines) + "\n", 1)


def _names_of(text: str) -> set[str]:
    """Names that a module defines or imports."""
    names: set[str] = set()
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in imported}
    return names


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("attnc.codegen_templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
