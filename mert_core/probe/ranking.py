"""ROC-AUC and average precision per class, as scikit-learn defines them, for many outputs and resamples at once.

Both ask only how many tracks stand above each positive one: a sort per output and class serves both, and every
resample of the tracks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Above:
    """How much stands above each group of equally ranked tracks that holds a positive one, for one output and class.

    Attributes:
        positives: weight of the group's positive tracks (groups, resamples).
        positives_to: the same of this and all higher groups.
        tracks_to: weight of all tracks of this and all higher groups.
        tracks_in: weight of all tracks of the group.
        total: weight of all tracks (resamples,).
    """

    positives: NDArray[np.float64]
    positives_to: NDArray[np.float64]
    tracks_to: NDArray[np.float64]
    tracks_in: NDArray[np.float64]
    total: NDArray[np.float64]

    def roc_auc(self) -> NDArray[np.float64]:
        """Return the area under the ROC curve (resamples,); NaN without a positive or a negative track."""
        negatives_to = self.tracks_to - self.positives_to
        negatives_before = negatives_to - (self.tracks_in - self.positives)
        found = self.positives.sum(axis=0)
        negatives = self.total - found
        passed = (self.positives * (negatives_to + negatives_before) / 2).sum(axis=0)
        return _divide(found * negatives - passed, found * negatives)

    def average_precision(self) -> NDArray[np.float64]:
        """Return the average precision (resamples,); NaN without a positive or a negative track."""
        found = self.positives.sum(axis=0)
        precision = np.divide(
            self.positives_to, self.tracks_to, out=np.zeros_like(self.positives_to), where=self.tracks_to > 0
        )
        area = _divide((self.positives * precision).sum(axis=0), found)
        return np.where(found < self.total, area, np.nan)


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)


def above(truth: NDArray[Any], outputs: NDArray[np.floating], counts: NDArray[np.float32] | None) -> Above:
    """Rank the tracks for one class by one output.

    Args:
        truth: whether the class holds (tracks,).
        outputs: (tracks,).
        counts: how often each resample draws a track (tracks, resamples), contiguous; None: each once.
    """
    order = np.argsort(-outputs, kind="stable")
    ranked, holds = outputs[order], truth[order] > 0
    group = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])])
    wanted = np.unique(group[holds])
    if counts is None:
        size, positive = np.bincount(group), np.bincount(group, weights=holds)
        return Above(
            positive[wanted][:, None], np.cumsum(positive)[wanted][:, None],
            np.cumsum(size)[wanted][:, None].astype(np.float64), size[wanted][:, None].astype(np.float64),
            np.array([float(len(order))]),
        )  # fmt: skip
    from scipy.sparse import csr_matrix

    # Row 2k + 1 adds up the kth group with a positive track, row 2k what stands between it and the one before.
    place = np.searchsorted(wanted, group)
    inside = place < len(wanted)
    inside[inside] = wanted[place[inside]] == group[inside]
    bins = 2 * place + inside
    rows = np.searchsorted(bins, np.arange(2 * len(wanted) + 2))
    ones = np.ones(len(order), dtype=np.float32)
    every = (csr_matrix((ones, order, rows), (len(rows) - 1, len(order))) @ counts).astype(np.float64)
    starts = np.searchsorted(group[holds], np.append(wanted, len(group)))
    held = csr_matrix((ones[: holds.sum()], order[holds], starts), (len(wanted), len(order)))
    positives = (held @ counts).astype(np.float64)
    to = np.cumsum(every, axis=0)
    return Above(positives, np.cumsum(positives, axis=0), to[1::2], every[1::2], to[-1])
