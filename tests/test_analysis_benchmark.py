"""The benchmark of the analysis runs, and says what it found and where others stopped."""

from __future__ import annotations

from benchmarks.analysis import measured, summary, systems_table
from benchmarks.analysis_scale import BUILDERS, documents, scale_table
from benchmarks.analysis_scale import measured as measured_at
from benchmarks.mask_catalogue import all_masks


def test_rows_tell_what_is_decided_without_elements() -> None:
    """A row counts tiles of each kind, and the table sums up both groups of masks."""
    rows = [measured(entry, with_bounds=False) for entry in all_masks()[:2]]

    assert rows[0]["empty"] + rows[0]["full"] + rows[0]["partial"] == rows[0]["tiles"] == 4096
    assert summary(rows)["static"] == {"masks": 2, "nothing_evaluated": 2, "closed_form": 0}
    assert "causal (FlexAttention)" in systems_table(rows)


def test_points_of_the_curve_have_time_and_memory() -> None:
    """Builders are asked at a length; the table also says why one was not asked further."""
    points = [measured_at(name, 4096) for name in ("analyze", "attnc")]
    stopped = {"builder": "eager", "length": 4096, "stopped": "more than 8 GiB"}

    table = scale_table([*points, stopped])

    assert all(point["ms"] > 0 and point["peak_mib"] < 50 for point in points)
    assert "more than 8 GiB" in table
    assert all(label in table for label in BUILDERS.values())


def test_documents_are_as_many_as_promised() -> None:
    """A thousand documents, identifiers ascending from 0."""
    mask = documents(1 << 14)
    ids = mask.__closure__[0].cell_contents  # type: ignore[attr-defined]

    assert (int(ids.max()) + 1, len(ids)) == (1000, 1 << 14)
    assert bool((ids[1:] >= ids[:-1]).all())
