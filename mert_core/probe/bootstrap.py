"""Percentile bootstrap over test tracks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.probe.metrics import Counts, Metric, Points, mean

BLOCK_FLOATS = 1 << 21
"""Counts held at once: 8 MB, 400 resamples of 5,000 tracks."""


def resampled(tracks: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield blocks of resamples: how often each track is drawn (some resamples, tracks), with replacement."""
    generator = np.random.default_rng(seed)
    at_once = max(1, BLOCK_FLOATS // tracks)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, tracks, (rows, tracks)) + tracks * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * tracks)
        yield counts.reshape(rows, tracks).astype(np.float32)


def percentiles(scores: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the bounds of the central share ``level`` of resampled scores; NaN, where none is defined, is left out."""
    low, high = np.nanquantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def scores_of(
    metric: Metric, truth: NDArray[Any], outputs: NDArray[np.floating], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the score of each resample, averaged over the probe seeds, which all see the same tracks (resamples,).

    Args:
        metric: of all tracks.
        truth: (tracks, …).
        outputs: (seeds, tracks, outputs).
        resamples: how many.
        seed: of the resampling.
    """
    if metric.points is not None:
        return means_of(metric.points(truth, outputs), resamples, seed)
    blocks = [metric(truth, outputs, counts).mean(axis=0) for counts in resampled(len(truth), resamples, seed)]
    return np.concatenate(blocks)


def means_of(points: Points, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean of each resample over tracks and probe seeds, from points (seeds, tracks): (resamples,)."""
    per_track = points.mean(axis=0)
    return np.concatenate([mean(per_track, counts) for counts in resampled(len(per_track), resamples, seed)])


def interval(points: Points, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the mean score, tracks drawn with replacement.

    A track carries its mean over the probe seeds: the interval is that of the seed-averaged score, and a resample draws
    the same tracks for every seed.

    Args:
        points: what each track earned (seeds, tracks).
        resamples: how many resamples; 1,000 by default in ``params.yaml``.
        seed: of the resampling.
        level: probability that the interval is to cover.
    """
    return percentiles(means_of(points, resamples, seed), level)


def interval_of(
    metric: Metric,
    truth: NDArray[Any],
    outputs: NDArray[np.floating],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a metric's seed-averaged score; see `scores_of` and `interval`."""
    return percentiles(scores_of(metric, truth, outputs, resamples, seed), level)
