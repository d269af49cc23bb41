"""The tasks' metrics, each of all tracks at once (never a mean of per-batch scores).

A metric takes outputs of many probes or seeds and, for the bootstrap, of many resamples of the tracks: a resample is
how often it draws each track.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.datasets.keys import KEYS
from mert_core.errors import MertError


@dataclass(frozen=True)
class RankCounts:
    """What stands above each group of equally ranked tracks with a positive one, for one output and class.

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
        positives = self.positives.sum(axis=0)
        negatives = self.total - positives
        passed = (self.positives * (negatives_to + negatives_before) / 2).sum(axis=0)
        return _divide(positives * negatives - passed, positives * negatives)

    def average_precision(self) -> NDArray[np.float64]:
        """Return the average precision (resamples,); NaN without a positive or a negative track."""
        positives = self.positives.sum(axis=0)
        precision = np.divide(
            self.positives_to, self.tracks_to, out=np.zeros_like(self.positives_to), where=self.tracks_to > 0
        )
        area = _divide((self.positives * precision).sum(axis=0), positives)
        return np.where(positives < self.total, area, np.nan)


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)


def rank_counts(truth: NDArray[Any], outputs: NDArray[np.floating], counts: NDArray[np.float32] | None) -> RankCounts:
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
        return RankCounts(
            positive[wanted][:, None],
            np.cumsum(positive)[wanted][:, None],
            np.cumsum(size)[wanted][:, None].astype(np.float64),
            size[wanted][:, None].astype(np.float64),
            np.array([float(len(order))]),
        )
    from scipy.sparse import csr_matrix

    # Row 2k + 1 adds up the kth group with a positive track, row 2k what stands between it and the one before.
    index = np.searchsorted(wanted, group)
    inside = index < len(wanted)
    inside[inside] = wanted[index[inside]] == group[inside]
    bins = 2 * index + inside
    rows = np.searchsorted(bins, np.arange(2 * len(wanted) + 2))
    ones = np.ones(len(order), dtype=np.float32)
    every = (csr_matrix((ones, order, rows), (len(rows) - 1, len(order))) @ counts).astype(np.float64)
    starts = np.searchsorted(group[holds], np.append(wanted, len(group)))
    held = csr_matrix((ones[: holds.sum()], order[holds], starts), (len(wanted), len(order)))
    positives = (held @ counts).astype(np.float64)
    to = np.cumsum(every, axis=0)
    return RankCounts(positives, np.cumsum(positives, axis=0), to[1::2], every[1::2], to[-1])


Points = NDArray[np.float64]
Counts = NDArray[np.float32]


@cache
def weighted_key(classes: int) -> Points:
    """Return the table of MIREX's key score, `mir_eval.key.weighted_score`, for the classes of `KEYS`."""
    from mir_eval import key

    if classes != len(KEYS):
        raise ValueError(f"the key score is defined on {len(KEYS)} classes, got {classes}")
    return np.array([[key.weighted_score(truth, estimate) for estimate in KEYS] for truth in KEYS])


def mean(points: Points, counts: Counts | None = None) -> NDArray[np.float64]:
    """Return the mean over tracks of what each earned (…, tracks): (…), or (…, resamples) of counts."""
    if counts is None:
        return points.mean(axis=-1)
    return points @ counts.T.astype(np.float64) / counts.sum(axis=1, dtype=np.float64)


def r2(truth: NDArray[np.floating], outputs: NDArray[np.floating], counts: Counts | None = None) -> NDArray[np.float64]:
    """Return the coefficient of determination per target, as scikit-learn's `r2_score` with ``raw_values``.

    Where the truth is constant it is 1 if nothing is wrong, else 0.

    Args:
        truth: (tracks, targets).
        outputs: (…, tracks, targets).
        counts: (resamples, tracks).

    Returns:
        (…, targets), or (…, resamples, targets).
    """
    level = truth.astype(np.float64) - truth.mean(axis=0, dtype=np.float64)
    wrong = np.square(outputs.astype(np.float64) - truth)
    if counts is None:
        missed, spread = wrong.sum(axis=-2), np.square(level).sum(axis=0)
    else:
        draws = counts.astype(np.float64)
        total = draws.sum(axis=1, keepdims=True)
        missed = draws @ wrong
        spread = np.maximum(draws @ np.square(level) - np.square(draws @ level) / total, 0)
        # Of one and the same value, whatever rounding leaves.
        spread[spread < 1e-12 * (draws @ np.square(level))] = 0
    missed, spread = np.broadcast_arrays(missed, spread)
    ratio = np.divide(missed, spread, out=np.ones_like(missed), where=spread > 0)
    return np.where((spread == 0) & (missed == 0), 1.0, 1 - ratio)


def macro(
    of: Callable[[RankCounts], NDArray[np.float64]],
    truth: NDArray[Any],
    outputs: NDArray[np.floating],
    counts: Counts | None = None,
) -> NDArray[np.float64]:
    """Return the mean over classes of a ranking metric; classes without positive or negative tracks are left out.

    Args:
        of: the metric of one class.
        truth: whether a class holds (tracks, classes).
        outputs: (…, tracks, classes).
        counts: (resamples, tracks).

    Returns:
        (…), or (…, resamples); NaN where no class is left.
    """
    leading, classes = outputs.shape[:-2], outputs.shape[-1]
    draws = None if counts is None else np.ascontiguousarray(counts.T)
    resamples = 1 if counts is None else len(counts)
    total = np.zeros((int(np.prod(leading)), resamples))
    used = np.zeros_like(total)
    mixed = [number for number in range(classes) if 0 < np.count_nonzero(truth[:, number]) < len(truth)]
    for row, output in enumerate(outputs.reshape(-1, *outputs.shape[-2:])):
        for number in mixed:
            scores = of(rank_counts(truth[:, number], output[:, number], draws))
            known = ~np.isnan(scores)
            total[row, known] += scores[known]
            used[row] += known
    means = np.divide(total, used, out=np.full_like(total, np.nan), where=used > 0)
    return means.reshape(leading) if counts is None else means.reshape(*leading, resamples)


@dataclass(frozen=True)
class Metric:
    """One figure of a table.

    Attributes:
        name: in the tables.
        score: from truth (tracks, …), outputs (…, tracks, outputs) and counts (resamples, tracks) or None to (…), or
            (…, resamples).
        points: what each track earns (…, tracks), of which the score is the mean; None where it is no mean.
    """

    name: str
    score: Callable[[NDArray[Any], NDArray[np.floating], Counts | None], NDArray[np.float64]]
    points: Callable[[NDArray[Any], NDArray[np.floating]], Points] | None = None

    def __call__(
        self, truth: NDArray[Any], outputs: NDArray[np.floating], counts: Counts | None = None
    ) -> NDArray[np.float64]:
        """Return the score."""
        return self.score(truth, outputs, counts)


def _of_table(name: str, table: Callable[[int], Points]) -> Metric:
    """Return the metric by which a track earns ``table(classes)[truth, prediction]``."""

    def points(truth: NDArray[Any], outputs: NDArray[np.floating]) -> Points:
        # The truth −1 is a class that the training split does not have, on which nobody can earn anything.
        earned = table(outputs.shape[-1])[truth.astype(np.int64), outputs.argmax(axis=-1)]
        return np.where(truth >= 0, earned, 0.0)

    return Metric(name, lambda truth, outputs, counts: mean(points(truth, outputs), counts), points)


def _r2(truth: NDArray[Any], outputs: NDArray[np.floating], counts: Counts | None) -> NDArray[np.float64]:
    return r2(truth.astype(np.float64), outputs, counts).mean(axis=-1)


METRICS: dict[str, Metric] = {
    "accuracy": _of_table("accuracy", np.eye),
    "weighted_score": _of_table("weighted_score", weighted_key),
    "roc_auc": Metric("roc_auc", lambda truth, outputs, counts: macro(RankCounts.roc_auc, truth, outputs, counts)),
    "ap": Metric("ap", lambda truth, outputs, counts: macro(RankCounts.average_precision, truth, outputs, counts)),
    "r2": Metric("r2", _r2),
}
"""Metrics by which a task may select, from the outputs of probes; of ``r2`` the mean over targets."""

METRIC_TITLES = {
    "accuracy": "accuracy",
    "weighted_score": "weighted score",
    "roc_auc": "ROC-AUC",
    "ap": "AP",
    "f_measure": "F, ±70 ms",
    "f_measure_20ms": "F, ±20 ms",
    "r2": "R², mean",
    "sdr": "SDR, mean",
}
"""Names of metrics for people."""


def figures(name: str, classes: Sequence[str]) -> list[Metric]:
    """Return the figures that a table shows of a metric: itself, or of ``r2`` one per target (``r2_valence``).

    Raises:
        MertError: no such metric.
    """
    if name not in METRICS:
        raise MertError(f"no metric {name!r}, expected one of {', '.join(METRICS)}")
    if name != "r2":
        return [METRICS[name]]

    def of_target(number: int) -> Metric:
        chosen = slice(number, number + 1)
        return Metric(
            f"r2_{classes[number]}", lambda truth, outputs, counts: _r2(truth[:, chosen], outputs[..., chosen], counts)
        )

    return [of_target(number) for number in range(len(classes))]
