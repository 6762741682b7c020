"""Colours that the pictures share."""

from __future__ import annotations

#: RGB of tiles by class, 0 empty, 1 partial, 2 full: on white, and on black.
LIGHT = ((236, 239, 243), (242, 178, 78), (42, 111, 166))
DARK = ((38, 43, 51), (214, 146, 44), (96, 165, 220))

# The map viridis at ten steps: equally bright steps, and read by the colour-blind too.
_VIRIDIS = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (109, 205, 89),
    (180, 222, 44),
    (253, 231, 37),
)


def of_level(level: float) -> tuple[int, int, int]:
    """RGB for 0, the least, to 1, the largest."""
    place = min(max(level, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    below = min(int(place), len(_VIRIDIS) - 2)
    part = place - below
    pairs = zip(_VIRIDIS[below], _VIRIDIS[below + 1], strict=True)
    red, green, blue = (round(a + (b - a) * part) for a, b in pairs)
    return red, green, blue


def in_hex(colour: tuple[int, int, int]) -> str:
    """As CSS writes it: ``#2a6fa6``."""
    return "#" + "".join(f"{part:02x}" for part in colour)
