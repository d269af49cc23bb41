"""The gate over labels: are the codes or spectra something that a student can learn?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE
from mert_core.targets.quality.table import Check, Ids, of_tracks
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


def count_codes(codes: NDArray[np.uint16], entries: int) -> NDArray[np.int64]:
    """Return how often each value occurs, int64 (codebooks, entries + 1); the last column is what is out of range."""
    clipped = np.minimum(codes, entries).astype(np.int64)
    return np.stack([np.bincount(clipped[:, book], minlength=entries + 1) for book in range(codes.shape[1])])


def check_codebooks(train: NDArray[np.int64], others: NDArray[np.int64], limits: GateConfig) -> list[Check]:
    """Check every codebook.

    Args:
        train: counts on the training split, as `count_codes` gives them (codebooks, entries + 1).
        others: the same over all other splits, where only the range matters.
        limits: thresholds.
    """
    checks = []
    for book, counts in enumerate(train):
        where = f"codebook {book}"
        outside = int(counts[-1] + others[book][-1])
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


def check_bins(figures: Arrays, limits: GateConfig) -> list[Check]:
    """Check a spectrum's bins: how many do not vary on the training split, and the largest magnitude anywhere.

    Args:
        figures: by split, as `mert_core.targets.shards` counts them; the training split comes first.
        limits: thresholds.
    """
    deviation = bin_deviations(figures)[0]
    dead = np.flatnonzero(deviation <= DEAD_SHARE * np.median(deviation))
    some = ", ".join(map(str, dead[:_SOME])) + (", …" if len(dead) > _SOME else "")
    share = len(dead) / len(deviation)
    ends = np.concatenate([np.abs(figures["least"]), np.abs(figures["most"])])
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


def bin_deviations(figures: Arrays) -> NDArray[np.float64]:
    """Return each bin's standard deviation by split (splits, bins); 0 where a split has no music."""
    frames = np.maximum(figures["frames"], 1)[:, None]
    mean = figures["sums"] / frames
    return np.sqrt(np.maximum(figures["squares"] / frames - np.square(mean), 0.0))


def check_invalid(ids: Ids, invalid: NDArray[np.int64], what: str) -> list[Check]:
    """Check that no track has codes out of range, or values that are not finite; the bad tracks are named."""
    advice = f"the teacher gave what it may not: look at the track's audio; if it is sound, {_ANEW}"
    return of_tracks(what, ids, np.flatnonzero(invalid), invalid, 0, "0", advice)


def check_lengths(ids: Ids, frames: NDArray[np.int64], seconds: NDArray[np.float64], limits: GateConfig) -> list[Check]:
    """Check that every track has 75 frames per second; one line for all, and one for each of the first bad tracks."""
    drift = np.abs(frames - seconds * FRAME_RATE)
    bad = np.flatnonzero(drift > limits.max_drift_frames)
    advice = f"corpus and targets do not fit together; {_ANEW}"
    limit = f"<= {limits.max_drift_frames:g}"
    return of_tracks("drift in frames", ids, bad, drift, drift.max(initial=0.0), limit, advice)


def check_teachers(shards: Mapping[str, str], teacher: str, teacher_id: str) -> list[Check]:
    """Check that one and the same teacher labelled all shards, and so training and validation music alike.

    Args:
        shards: name of each shard to the id of the teacher that labelled it.
        teacher: name of the teacher.
        teacher_id: the id of its record.
    """
    others = sorted(name for name, found in shards.items() if found != teacher_id)
    advice = (
        f"it was labelled by {{found}}…, not by the present {teacher} ({teacher_id[:12]}…), so that training and "
        f"validation would not mean the same; {_ANEW}"
    )
    if not others:
        return [Check("labelled by another teacher", f"{len(shards)} shards", 0, "0", True)]
    return [
        Check("labelled by another teacher", f"shard {name}", 1, "0", False, advice.format(found=shards[name][:12]))
        for name in others[:_SOME]
    ]
