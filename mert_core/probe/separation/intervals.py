"""Scores over tracks some of which have none: a silent stem has no ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mert_core.probe.bootstrap import resampled
from mert_core.probe.metrics import Counts, Points

MUSEVAL = "_museval"
"""What the name of a figure ends in that is a median of windows and tracks, as museval has it."""


def is_median(figure: str) -> bool:
    """Return whether a figure is a median over tracks; else it is their mean."""
    return figure.endswith(MUSEVAL)


def mean_of(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Return the mean over the tracks that have a value, in each resample (resamples,); NaN where there is none.

    Args:
        values: of tracks (tracks,); NaN: none.
        counts: how often each resample draws a track (resamples, tracks).
    """
    known = ~np.isnan(values)
    drawn = counts[:, known].astype(np.float64)
    total = drawn.sum(axis=1)
    return np.divide(drawn @ values[known], total, out=np.full(len(drawn), np.nan), where=total > 0)


def median_of(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Return the median in place of the mean; see `mean_of`."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    up_to = np.cumsum(counts[:, order], axis=1, dtype=np.float64)
    total = up_to[:, -1:] if len(order) else np.zeros((len(counts), 1))
    if not len(order):
        return np.full(len(counts), np.nan)
    ranked = values[order]
    middle = [ranked[(up_to > place).argmax(axis=1)] for place in (np.floor((total - 1) / 2), np.floor(total / 2))]
    return np.where(total[:, 0] > 0, (middle[0] + middle[1]) / 2, np.nan)


def resampled_scores(
    points: Points, median: bool, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a score of all tracks, and of resamples of them.

    Args:
        points: of each probe seed and track (seeds, tracks); a track counts with its mean over the seeds.
        median: whether the score is the median over tracks; else it is their mean.
        resamples: how many.
        seed: of the resampling; of one seed all scores see the same resamples.

    Returns:
        The score (1,), and those of the resamples (resamples,).
    """
    values, of = points.mean(axis=0), median_of if median else mean_of
    drawn = [of(values, counts) for counts in resampled(len(values), resamples, seed)]
    return of(values, np.ones((1, len(values)), dtype=np.float32)), np.concatenate(drawn)
