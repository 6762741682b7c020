"""Systems that attend along one axis of a grid at a time, whole or in a window."""

from __future__ import annotations

from typing import Any

from attnc import library
from examples.systems.catalogue import Parts, system

_HPNET = (
    "HPNet: Dynamic Trajectory Forecasting with Historical Prediction Attention, arXiv:2404.06351"
)
_SENER = "Small Language Model Makes an Effective Long Text Extractor, arXiv:2502.07286"
_TRAJECTORIES = (7, 4, 5)  # times, agents, modes
_SPANS = (12, 11)  # first and last words


def _another(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx != kv_idx


@system("HPNet, historical predictions", source=_HPNET, shape=(1, 2, 140, 140))
def hpnet_times() -> Parts:
    """Predictions of one agent and mode at up to four earlier times; the first see nothing."""
    recent = library.sliding_window(4 * 4 * 5)
    return Parts(library.axial(_TRAJECTORIES, 0) & recent & _another)


@system("HPNet, agents", source=_HPNET, shape=(1, 2, 140, 140))
def hpnet_agents() -> Parts:
    """The other agents at one time, in one mode, if all are within the radius."""
    return Parts(library.axial(_TRAJECTORIES, 1) & _another)


@system("HPNet, modes", source=_HPNET, shape=(1, 2, 140, 140))
def hpnet_modes() -> Parts:
    """The other modes of one agent at one time."""
    return Parts(library.axial(_TRAJECTORIES, 2) & _another)


@system(
    "SeNER, spans that start together",
    source=_SENER,
    shape=(1, 2, 132, 132),
    from_memory="that all pairs of words are kept; there only those near the diagonal are",
)
def sener_rows() -> Parts:
    """Pairs of words with one first word, whose last words are near: a bar of the plus."""
    return Parts(library.axial(_SPANS, 1) & library.sliding_window(3, 3))


@system(
    "SeNER, spans that end together",
    source=_SENER,
    shape=(1, 2, 132, 132),
    from_memory="that all pairs of words are kept; there only those near the diagonal are",
)
def sener_columns() -> Parts:
    """Pairs of words with one last word, whose first words are near: the other bar."""
    reach = 3 * _SPANS[1]
    return Parts(library.axial(_SPANS, 0) & library.sliding_window(reach, reach))
