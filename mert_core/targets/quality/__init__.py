"""The gate: stops the line when labels or music are bad, before compute is spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mert_core.data.manifest import SPLITS
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.targets.quality.labels import (
    check_bins,
    check_codebooks,
    check_invalid,
    check_lengths,
    check_teachers,
    count_codes,
)
from mert_core.targets.quality.manifest import Sketches, check_alike, check_artists, check_duplicates
from mert_core.targets.quality.sound import check_bandwidth, check_content, check_rate, check_silence
from mert_core.targets.quality.table import Check, as_table, explain, render

if TYPE_CHECKING:
    from mert_core.config import GateConfig
    from mert_core.targets.track_table import Evidence

__all__ = ["Check", "as_table", "check_codebooks", "check_lengths", "count_codes", "explain", "judge", "render"]


def judge(
    found: Evidence,
    kind: TargetKind,
    teacher: str,
    teacher_id: str,
    held_out: Sketches,
    train: Sketches,
    limits: GateConfig,
) -> list[Check]:
    """Return every check of the gate.

    Args:
        found: what was gathered.
        kind: of the teacher's targets.
        teacher: its name.
        teacher_id: the id of its record.
        held_out: rows and sketches of the validation and test tracks.
        train: of the training tracks.
        limits: thresholds.
    """
    if isinstance(kind, Codes):
        counts = found.figures["counts"]
        checks = check_codebooks(counts[SPLITS.index("train")], counts[1:].sum(axis=0), limits)
        checks += check_invalid(found.ids, found.invalid, "codes out of range")
    else:
        checks = check_bins(found.figures, limits)
        checks += check_invalid(found.ids, found.invalid, "values that are not finite")
    return [
        *checks,
        *check_lengths(found.ids, found.frames, found.seconds, limits),
        *check_teachers(found.teachers, teacher, teacher_id),
        *check_rate(found.ids, found.samples, found.seconds),
        *check_content(found.ids, found.same_audio),
        *check_bandwidth(found.ids, found.wall_hertz, found.source_rates, limits),
        *check_silence(found.ids, found.silent_frames, found.frames, limits),
        *check_duplicates(found.ids, found.digests, found.splits),
        *check_alike(found.ids, found.splits, held_out, train, limits),
        *check_artists(found.artists, found.splits, limits),
    ]
