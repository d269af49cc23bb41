"""Figures of one target shard, by split: how often each code occurs, or how each bin varies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.corpus.manifest import SPLITS
from mert_core.targets.kept import Arrays
from mert_core.targets.plan import ShardPlan
from mert_core.teachers.kinds import Codes, Kind

_SUMS = {"counts", "frames", "sums", "squares"}


def tally(kind: Kind, targets: NDArray[Any], plan: ShardPlan, splits: NDArray[np.int8]) -> Arrays:
    """Return a shard's figures.

    Args:
        kind: what the targets are.
        targets: the shard, (frames, width).
        plan: where its tracks lie.
        splits: of each track (tracks,), as places in ``SPLITS``.

    Returns:
        ``splits`` as given and ``invalid`` (tracks,), the numbers of each track that no teacher may give: codes out
        of range, values that are not finite. For codes ``counts`` (splits, codebooks, entries + 1), the last column
        what is out of range; for spectra ``frames`` (splits,), ``sums``, ``squares``, ``least`` and ``most`` (splits,
        bins), of the finite values.
    """
    figures = nothing(kind)
    invalid = np.zeros(len(splits), dtype=np.int64)
    begins, lengths = plan.offsets // HOP_SAMPLES, plan.samples // HOP_SAMPLES
    for place, (begin, count, split) in enumerate(zip(begins.tolist(), lengths.tolist(), splits.tolist(), strict=True)):
        track = targets[begin : begin + count]
        if isinstance(kind, Codes):
            invalid[place] = _count(figures, track, kind.entries, split)
        else:
            invalid[place] = _measure(figures, track, split)
    return {"splits": splits, "invalid": invalid, **figures}


def nothing(kind: Kind) -> Arrays:
    """Return the figures of no frames."""
    if isinstance(kind, Codes):
        return {"counts": np.zeros((len(SPLITS), kind.codebooks, kind.entries + 1), dtype=np.int64)}
    shape = len(SPLITS), kind.bins
    return {
        "frames": np.zeros(len(SPLITS), dtype=np.int64),
        "sums": np.zeros(shape), "squares": np.zeros(shape),
        "least": np.full(shape, np.inf), "most": np.full(shape, -np.inf),
    }  # fmt: skip


def merge(total: Arrays, figures: Arrays) -> None:
    """Add a shard's figures to a total."""
    for name, values in total.items():
        if name in _SUMS:
            values += figures[name]
        else:
            (np.minimum if name == "least" else np.maximum)(values, figures[name], out=values)


def _count(figures: Arrays, track: NDArray[np.uint16], entries: int, split: int) -> int:
    clipped = np.minimum(track, entries).astype(np.int64)
    for book, counts in enumerate(figures["counts"][split]):
        counts += np.bincount(clipped[:, book], minlength=entries + 1)
    return int(np.count_nonzero(clipped == entries))


def _measure(figures: Arrays, track: NDArray[np.float16], split: int) -> int:
    values = track.astype(np.float64)
    finite = np.isfinite(values)
    invalid = int(values.size - np.count_nonzero(finite))
    figures["frames"][split] += len(values)
    figures["least"][split] = np.minimum(figures["least"][split], np.where(finite, values, np.inf).min(axis=0))
    figures["most"][split] = np.maximum(figures["most"][split], np.where(finite, values, -np.inf).max(axis=0))
    values[~finite] = 0.0
    figures["sums"][split] += values.sum(axis=0)
    figures["squares"][split] += np.square(values).sum(axis=0)
    return invalid
