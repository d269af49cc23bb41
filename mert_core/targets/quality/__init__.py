"""The quality gate: stops the pipeline when labels or music are bad, before compute is spent on them.

`judge` runs every check over the table of tracks and the statistics of their targets; each check gives one or more
lines (`Check`) with a value, its limit and, if it failed, what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.targets.quality.labels import check_bins, check_codebooks, check_invalid, check_lengths, check_teachers
from mert_core.targets.quality.manifest import Fingerprints, check_alike, check_artists, check_duplicates
from mert_core.targets.quality.sound import check_bandwidth, check_content, check_rate, check_silence
from mert_core.targets.quality.table import Check, as_table, explain, render
from mert_core.targets.shards import Arrays

if TYPE_CHECKING:
    from mert_core.config import GateConfig

__all__ = ["Check", "as_table", "explain", "judge", "render"]


def judge(
    tracks: pa.Table,
    statistics: Arrays,
    kind: TargetKind,
    labeled_by: Mapping[str, str],
    teacher: tuple[str, str],
    held_out: Fingerprints,
    train: Fingerprints,
    limits: GateConfig,
) -> list[Check]:
    """Return every check of the gate.

    Args:
        tracks: all tracks (`mert_core.targets.track_table.TRACK_TABLE`).
        statistics: what `mert_core.targets.shards.target_statistics` gives, of all targets.
        kind: what the teacher's targets are.
        labeled_by: id of the teacher that labeled each shard, by the shard's name.
        teacher: name and id of the present teacher.
        held_out: rows and fingerprints of the validation and test tracks.
        train: rows and fingerprints of the training tracks.
        limits: thresholds.
    """
    if isinstance(kind, Codes):
        checks = check_codebooks(statistics["counts"], limits) + check_invalid(tracks, "codes out of range")
    else:
        checks = check_bins(statistics, limits) + check_invalid(tracks, "values that are not finite")
    return [
        *checks,
        *check_lengths(tracks, limits),
        *check_teachers(labeled_by, *teacher),
        *check_rate(tracks),
        *check_content(tracks),
        *check_bandwidth(tracks, limits),
        *check_silence(tracks, limits),
        *check_duplicates(tracks),
        *check_alike(tracks, held_out, train, limits),
        *check_artists(tracks, limits),
    ]
