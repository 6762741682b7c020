"""Seconds per unit of work on this machine, measured once and kept beside the compiled kernels."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attnc.cost.work import Work
from attnc.runtime.fingerprint import generator_digest
from attnc.runtime.isa import processor_name
from attnc.target import CpuIsa

_FILE = "rates.json"


@dataclass(frozen=True)
class Rates:
    """Seconds per unit of each kind of ``Work``, for kernels of one kind on one thread.

    Attributes:
        isa: Instructions that the kernels use.
        dtype: Of q, k and v.
        backward: Of the backward pass.
        seconds: Per unit, in the order of ``Work``.
        dispatch: Seconds from a call to its kernel.
    """

    isa: CpuIsa
    dtype: str
    backward: bool
    seconds: Work
    dispatch: float

    def time(self, work: Work, n_threads: int = 1) -> float:
        """Seconds that ``work`` takes."""
        once = self.dispatch + work.calls * self.seconds.calls
        shared = sum(amount * cost for amount, cost in zip(work[1:], self.seconds[1:], strict=True))
        return once + shared / n_threads

    @property
    def gflops(self) -> float:
        """Rate of the matrix products, in 10^9 operations per second."""
        return 2e-9 / self.seconds.products


def rates_of(isa: CpuIsa, dtype: str, *, backward: bool, measure_anew: bool = False) -> Rates:
    """The rates of this machine: from memory, from the cache folder, or measured (a second, and
    the few that compiling takes the first time).

    Raises:
        NoCompilerError: There is no C++ compiler, so that no kernel can be measured.
    """
    found = None if measure_anew else known_rates(isa, dtype, backward=backward)
    if found is None:
        from attnc.cost.calibrate import measured_rates

        found = measured_rates(isa, dtype, backward)
        _known[isa, dtype, backward] = found
        _keep(found)
    return found


def known_rates(isa: CpuIsa, dtype: str, *, backward: bool) -> Rates | None:
    """The rates of this machine if they have been measured."""
    key = isa, dtype, backward
    if key not in _known:
        kept: Any = _entries().get(_key(*key))
        try:
            _known[key] = Rates(*key, Work(**kept["seconds"]), float(kept["dispatch"]))
        except (TypeError, KeyError, ValueError):  # none, or what another version has written
            return None
    return _known[key]


_known: dict[tuple[CpuIsa, str, bool], Rates] = {}


def _key(isa: CpuIsa, dtype: str, backward: bool) -> str:
    made_by = f"{version('attnc')} {generator_digest('.cpp.jinja')[:16]}"
    direction = "backward" if backward else "forward"
    return f"{processor_name()}, {isa}, {dtype}, {direction}, {made_by}"


def _path() -> Path:
    from attnc.runtime.cache import disk_cache

    return disk_cache().root / _FILE


def _entries() -> dict[str, Any]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(rates: Rates) -> None:
    """Writes the rates into the cache folder; where it cannot be written to, they are not kept."""
    key = _key(rates.isa, rates.dtype, rates.backward)
    of_this = {"seconds": rates.seconds._asdict(), "dispatch": rates.dispatch}
    content = json.dumps({**_entries(), key: of_this}, indent=1)
    with suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix=".rates-", dir=_path().parent)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        Path(name).replace(_path())
