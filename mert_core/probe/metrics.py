"""Metrics as tables of points: ``points[truth, prediction]`` is what an item earns; a score is the mean over all items.

A table makes every metric a global one (never a mean of per-batch scores) and lets probes, seeds and bootstrap
resamples be scored at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mert_core.corpus.keys import KEYS

Points = NDArray[np.float64]


def accuracy(classes: int) -> Points:
    """Return the table of accuracy: 1 on the diagonal."""
    return np.eye(classes)


def weighted_key(classes: int) -> Points:
    """Return the table of `mir_eval.key.weighted_score`, MIREX's key score, for the classes of `KEYS`.

    The same key earns 1, one a perfect fifth above the truth in the same mode .5, the relative .3, the parallel .2.
    """
    if classes != len(KEYS):
        raise ValueError(f"the key score is defined on {len(KEYS)} classes, got {classes}")
    mode, tonic = np.divmod(np.arange(classes), 12)
    interval = (tonic[None, :] - tonic[:, None]) % 12
    same_mode = mode[None, :] == mode[:, None]
    relative = np.where(mode[:, None] == 0, 9, 3)
    points = np.zeros((classes, classes))
    points[same_mode & (interval == 0)] = 1.0
    points[same_mode & (interval == 7)] = 0.5
    points[~same_mode & (interval == relative)] = 0.3
    points[~same_mode & (interval == 0)] = 0.2
    return points


METRICS: dict[str, Callable[[int], Points]] = {"accuracy": accuracy, "weighted_score": weighted_key}


def item_points(points: Points, truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> Points:
    """Return what each item earns.

    Args:
        points: table (classes, classes).
        truth: (items,); -1 is a class that the training split does not have, on which nobody can earn anything.
        prediction: (…, items).

    Returns:
        (…, items).
    """
    return np.where(truth >= 0, points[truth, prediction], 0.0)
