"""Systems that attend along one axis of a grid at a time, whole or in a window."""

from __future__ import annotations

from attnc import library
from examples.systems.catalogue import Parts, system

_HPNET = (
    "HPNet: Dynamic Trajectory Forecasting with Historical Prediction Attention, arXiv:2404.06351"
)
_SENER = "Small Language Model Makes an Effective Long Text Extractor, arXiv:2502.07286"
_TRAJECTORIES = (7, 4, 5)  # times, agents, modes
_SPANS = (12, 11)  # first and last words


@system(
    "HPNet, historical predictions",
    source=_HPNET,
    shape=(1, 2, 140, 140),
    from_memory="that a prediction sees all earlier ones of its agent and mode",
)
def hpnet_times() -> Parts:
    """Predictions of one agent and mode, up to the own time."""
    return Parts(library.axial(_TRAJECTORIES, 0) & library.causal())


@system("HPNet, agents", source=_HPNET, shape=(1, 2, 140, 140))
def hpnet_agents() -> Parts:
    """All agents at one time, in one mode."""
    return Parts(library.axial(_TRAJECTORIES, 1))


@system("HPNet, modes", source=_HPNET, shape=(1, 2, 140, 140))
def hpnet_modes() -> Parts:
    """All modes of one agent at one time."""
    return Parts(library.axial(_TRAJECTORIES, 2))


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
