"""``attnc bench``: a function's kernels against PyTorch's own ways, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attnc.checks import DTYPES
from attnc.cli.console import write
from attnc.cli.options import of_user_code, parsed_shape, require_choice, shape_for
from attnc.cli.target import load_target
from attnc.errors import OptionValueError


@dataclass(frozen=True)
class Options:
    """The options as typed; see ``attnc bench --help``."""

    shape: str | None
    kv_heads: int | None
    against: str
    dtype: str | None
    backward: bool
    seconds: float
    device: str | None
    json: str | None
    picture: str | None
    command: str


def run(target: str | None, expression: str | None, options: Options) -> int:
    """Holds the contest, prints and writes it; 1 if attnc's result is wrong, else 0."""
    peers = _peers(options.against)
    if options.dtype is not None:
        require_choice("--dtype", options.dtype, DTYPES)
    sizes = parsed_shape(shape_for(target, options.shape))
    if options.kv_heads is not None and sizes[1] % options.kv_heads:
        wrong = f"it must divide the {sizes[1]} query heads of --shape."
        raise OptionValueError(option="--kv-heads", value=options.kv_heads, problem=wrong)
    _require_files(options)
    mod = load_target(target, expression)
    device = _device(options.device)
    name = target or "--expr"

    from attnc.bench.contest import hold
    from attnc.bench.contestants import contestants
    from attnc.bench.measure import write_json
    from attnc.bench.problem import Problem
    from attnc.bench.report import content, draw, table

    n_batch, n_heads, n_queries, n_keys, head_dim = sizes
    problem = Problem(
        mod,
        n_batch,
        n_heads,
        n_heads if options.kv_heads is None else options.kv_heads,
        n_queries,
        n_keys,
        head_dim,
        options.dtype or ("float32" if device == "cpu" else "bfloat16"),
        device,
        options.backward,
    )
    with _progress() as on_step:
        result = of_user_code(
            name,
            lambda: hold(
                problem, contestants(problem, peers), enough_s=options.seconds, on_step=on_step
            ),
        )
    passes = "forward and backward" if options.backward else "forward"
    shown = ",".join(map(str, sizes))
    write(f"{name}, {passes}, shape {shown}, {problem.dtype}, {device}\n")
    write(table(result))
    if options.json is not None:
        write_json(Path(options.json), content(result, name, options.command))
    if options.picture is not None:
        draw(result, name, Path(options.picture))
    return int(result.ours.state == "wrong")


def _require_files(options: Options) -> None:
    """Raises before anything is timed if a result could not be written."""
    for option, path in (("--json", options.json), ("--picture", options.picture)):
        if path is None:
            continue
        if not Path(path).parent.is_dir():
            missing = f"there is no folder {Path(path).parent}."
            raise OptionValueError(option=option, value=path, problem=missing)
        if Path(path).is_dir():
            problem = "it is a folder; name a file."
            raise OptionValueError(option=option, value=path, problem=problem)
    if options.picture is not None and Path(options.picture).suffix.lower() != ".png":
        problem = "name a PNG, such as bench.png."
        raise OptionValueError(option="--picture", value=options.picture, problem=problem)
    if options.picture is not None and importlib.util.find_spec("matplotlib") is None:
        missing = "matplotlib is not installed. Run `pip install matplotlib`."
        raise OptionValueError(option="--picture", value=options.picture, problem=missing)


def _peers(text: str) -> tuple[str, ...]:
    from attnc.bench.contestants import PEERS

    peers = tuple(part.strip() for part in text.split(",") if part.strip())
    for peer in peers:
        require_choice("--against", peer, PEERS)
    return tuple(dict.fromkeys(peers))


def _device(wanted: str | None) -> str:
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    require_choice("--device", wanted, ("cpu", "cuda"))
    if wanted == "cuda" and not torch.cuda.is_available():
        problem = "PyTorch finds no GPU here; use cpu."
        raise OptionValueError(option="--device", value=wanted, problem=problem)
    return wanted


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], object]]:
    """A bar on standard error while a contest is held, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda text, share: progress.update(task, description=text, completed=share)
