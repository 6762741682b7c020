"""What an entry of the gallery is, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

Mod = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Parts:
    """The attention of a system, without the rest of its model.

    Attributes:
        mask: mask_mod, Kernel or None.
        score: score_mod, Kernel or None.
        data: The tensors that both capture, by name.
        learned: Names in ``data`` of what is trained with the model.
    """

    mask: Mod | None = None
    score: Mod | None = None
    data: Mapping[str, torch.Tensor] = field(default_factory=dict)
    learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """One published system.

    Attributes:
        name: As its paper calls it.
        source: Title or identifier of the paper.
        needs: What it asks of a compiler: the module of the gallery it stands in.
        shape: (B, H, n_queries, n_keys) of the example.
        build: Gives the parts; the same ones at each call.
        from_memory: What of it is not in the paper's abstract or released code, if anything.
    """

    name: str
    source: str
    needs: str
    shape: tuple[int, int, int, int]
    build: Callable[[], Parts]
    from_memory: str = ""


#: All systems, by the name of the function that builds them.
SYSTEMS: dict[str, System] = {}


def system(
    name: str, *, source: str, shape: tuple[int, int, int, int], from_memory: str = ""
) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Enters a system into the gallery."""

    def enter(build: Callable[[], Parts]) -> Callable[[], Parts]:
        needs = build.__module__.rpartition(".")[2].replace("_", " ")
        assert build.__name__ not in SYSTEMS, f"two systems are called {build.__name__}"
        SYSTEMS[build.__name__] = System(name, source, needs, shape, build, from_memory)
        return build

    return enter


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Normally distributed numbers, float32, the same ones at each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: int, *shape: int, seed: int) -> torch.Tensor:
    """Integers from ``low`` to ``high - 1``, int32, the same ones at each call."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)


def flags(share: float, *shape: int, seed: int) -> torch.Tensor:
    """Booleans, a share of them true, the same ones at each call."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def load_systems() -> dict[str, System]:
    """All systems, by the name of the function that builds them; imports every room."""
    folder = Path(__file__).parent
    for path in sorted(folder.glob("*.py")):
        if path.stem not in (Path(__file__).stem, "not_yet"):
            import_module(f"{__package__}.{path.stem}")
    return SYSTEMS
