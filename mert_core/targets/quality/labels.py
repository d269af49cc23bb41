"""Checks over labels: are the codes or spectra something that a student can learn?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE
from mert_core.targets.quality.table import Check, track_checks
from mert_core.targets.shards import Arrays

if TYPE_CHECKING:
    from mert_core.config import GateConfig

DEAD_SHARE = 1e-3
"""A bin whose standard deviation is below this share of the median bin's is dead."""
_SOME = 5
_RANGE, _USAGE, _ENTROPY, _TOP = "codes out of range", "usage", "entropy bits", "top share"
_ANEW = "remove the teacher's folder under data/targets and run `mert targets` for it again"
_TRAIN_MORE = "train the teacher longer (steps, under teachers in params.yaml), on more music, or with fewer entries"
_ADVICE = {
    _RANGE: f"store and teacher do not fit together; {_ANEW}",
    _USAGE: _TRAIN_MORE,
    _ENTROPY: _TRAIN_MORE,
    _TOP: "the commonest entry is often silence: trim the corpus; else train the teacher longer",
}


def check_codebooks(counts_by_split: NDArray[np.int64], limits: GateConfig) -> list[Check]:
    """Check every codebook on the training split; of the other splits only the range of the codes matters.

    Args:
        counts_by_split: (splits, codebooks, entries + 1), how often each code occurs, the training split first; the
            last column counts codes out of range.
        limits: thresholds.
    """
    checks = []
    for book, counts in enumerate(counts_by_split[0]):
        where = f"codebook {book}"
        outside = int(counts_by_split[:, book, -1].sum())
        checks += [
            Check(_RANGE, where, outside, "0", outside == 0, _ADVICE[_RANGE]),
            _check_usage(where, counts[:-1], limits),
            _check_entropy(where, counts[:-1], limits),
            _check_top(where, counts[:-1], limits),
        ]
    return checks


def _check_usage(where: str, counts: NDArray[np.int64], limits: GateConfig) -> Check:
    usage = float((counts > 0).mean())
    return Check(_USAGE, where, usage, f">= {limits.min_usage:g}", usage >= limits.min_usage, _ADVICE[_USAGE])


def _check_entropy(where: str, counts: NDArray[np.int64], limits: GateConfig) -> Check:
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    entropy = float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0
    passed = entropy >= limits.min_entropy_bits
    return Check(_ENTROPY, where, entropy, f">= {limits.min_entropy_bits:g}", passed, _ADVICE[_ENTROPY])


def _check_top(where: str, counts: NDArray[np.int64], limits: GateConfig) -> Check:
    top = float(counts.max() / max(int(counts.sum()), 1))
    return Check(_TOP, where, top, f"<= {limits.max_top_share:g}", top <= limits.max_top_share, _ADVICE[_TOP])


def check_bins(statistics: Arrays, limits: GateConfig) -> list[Check]:
    """Check a spectrum's bins: how many do not vary on the training split, and the largest magnitude anywhere.

    Args:
        statistics: what `mert_core.targets.shards.target_statistics` gives; the training split comes first.
        limits: thresholds.
    """
    deviation = bin_deviations(statistics)[0]
    dead = np.flatnonzero(deviation <= DEAD_SHARE * np.median(deviation))
    some = ", ".join(map(str, dead[:_SOME])) + (", …" if len(dead) > _SOME else "")
    share = len(dead) / len(deviation)
    ends = np.concatenate([np.abs(statistics["least"]), np.abs(statistics["most"])])
    largest = float(ends[np.isfinite(ends)].max(initial=0.0))
    return [
        Check(
            "dead bins",
            "bins " + some if len(dead) else f"{len(deviation)} bins",
            share,
            f"<= {limits.max_dead_bins:g}",
            share <= limits.max_dead_bins,
            "these never change, so there is nothing to learn from them: music of a lower sample rate leaves the upper "
            "ones empty; take a teacher of fewer bins, or other music",
        ),
        Check(
            "largest magnitude",
            "all tracks",
            largest,
            f"<= {limits.max_magnitude:g}",
            largest <= limits.max_magnitude,
            "a squared error hears little else than such values; scale the teacher's targets or take their logarithm",
        ),
    ]


def bin_deviations(statistics: Arrays) -> NDArray[np.float64]:
    """Return each bin's standard deviation by split (splits, bins); 0 where a split has no music."""
    frames = np.maximum(statistics["frames"], 1)[:, None]
    mean = statistics["sums"] / frames
    return np.sqrt(np.maximum(statistics["squares"] / frames - np.square(mean), 0.0))


def check_invalid(tracks: pa.Table, what: str) -> list[Check]:
    """Check that no track has codes out of range, or values that are not finite; the bad tracks are named."""
    advice = f"the teacher gave what it may not: look at the track's audio; if it is sound, {_ANEW}"
    invalid = tracks["invalid"].to_numpy()
    return track_checks(what, tracks, np.flatnonzero(invalid), invalid, 0, "0", advice)


def check_lengths(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check that every track has 75 frames per second; one line for all, and one for each of the first bad tracks."""
    drift = np.abs(tracks["frames"].to_numpy() - tracks["seconds"].to_numpy() * FRAME_RATE)
    bad = np.flatnonzero(drift > limits.max_drift_frames)
    advice = f"corpus and targets do not fit together; {_ANEW}"
    limit = f"<= {limits.max_drift_frames:g}"
    return track_checks("drift in frames", tracks, bad, drift, drift.max(initial=0.0), limit, advice)


def check_teachers(labeled_by: Mapping[str, str], teacher: str, teacher_id: str) -> list[Check]:
    """Check that one and the same teacher labeled all shards, and so training and validation music alike.

    Args:
        labeled_by: id of the teacher that labeled each shard, by the shard's name.
        teacher: name of the present teacher.
        teacher_id: id of its record.
    """
    others = sorted(name for name, labeler in labeled_by.items() if labeler != teacher_id)
    advice = (
        f"it was labelled by {{labeler}}…, not by the present {teacher} ({teacher_id[:12]}…), so that training and "
        f"validation would not mean the same; {_ANEW}"
    )
    if not others:
        return [Check("labelled by another teacher", f"{len(labeled_by)} shards", 0, "0", True)]
    return [
        Check(
            "labelled by another teacher", f"shard {name}", 1, "0", False, advice.format(labeler=labeled_by[name][:12])
        )
        for name in others[:_SOME]
    ]
