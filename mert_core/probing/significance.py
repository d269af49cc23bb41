"""How sure a score is, and a difference between two models: bootstrap intervals, permutation tests, Holm's correction.

Tests and correction are scipy's and statsmodels'. The bootstrap draws tracks with a generator of its own: one draw
serves all metrics and probe seeds of a task, and a metric takes many resamples at once as counts of how often each
track is drawn, (resamples, tracks). `scipy.stats.bootstrap` would index the tracks anew for every metric; a ranking
metric would sort them for each of 1,000 resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probing.metrics import Counts, Metric, Points, mean
from mert_core.probing.results import Predictions

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


LEVEL = 0.95
"""Probability that an interval is to cover."""


def interval(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds of the central 95 % of resampled scores; NaN, where none is defined, is left out."""
    low, high = np.nanquantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def scores_of(
    metric: Metric, truth: NDArray[Any], outputs: NDArray[np.floating], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the score of each resample, averaged over the probe seeds, which all see the same tracks (resamples,).

    Labels are (tracks, …), predictions (seeds, tracks, outputs); the seed is that of the draws.
    """
    if metric.points is not None:
        return means_of(metric.points(truth, outputs), resamples, seed)
    blocks = [metric(truth, outputs, counts).mean(axis=0) for counts in resampled(len(truth), resamples, seed)]
    return np.concatenate(blocks)


def means_of(points: Points, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean of each resample over tracks and probe seeds, from points (seeds, tracks): (resamples,)."""
    per_track = points.mean(axis=0)
    return np.concatenate([mean(per_track, counts) for counts in resampled(len(per_track), resamples, seed)])


MUSEVAL = "_museval"
"""Ending of the names of metrics that are a median of windows and tracks, as museval has it."""


def is_median(metric: str) -> bool:
    """Return whether a metric is a median over tracks; else it is their mean."""
    return metric.endswith(MUSEVAL)


def mean_of(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Return the mean over the tracks that have a value (tracks,), not NaN, in each resample (resamples,).

    It is NaN where a resample has no such track. ``counts`` says how often each draws a track (resamples, tracks).
    """
    known = ~np.isnan(values)
    drawn = counts[:, known].astype(np.float64)
    total = drawn.sum(axis=1)
    return np.divide(drawn @ values[known], total, out=np.full(len(drawn), np.nan), where=total > 0)


def median_of(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Return the median in place of the mean; see `mean_of`."""
    drawn = np.repeat(np.tile(values, len(counts)), counts.ravel().astype(np.int64))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice")
        return np.nanmedian(drawn.reshape(len(counts), -1), axis=1)


def resampled_scores(points: Points, median: bool, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean over all tracks, or their median, and then that of each resample (1 + resamples,).

    A track counts with the mean of what it earned over the probe seeds (seeds, tracks). All scores of one seed see the
    same resamples.
    """
    values, of = points.mean(axis=0), median_of if median else mean_of
    once = np.ones((1, len(values)), dtype=np.float32)
    return np.concatenate([of(values, counts) for counts in (once, *resampled(len(values), resamples, seed))])


FLIPPED_FLOATS = 1 << 20
"""Differences with flipped signs that are held at once: 8 MB, and some copies of them."""


@dataclass(frozen=True)
class Difference:
    """One row of a table.

    Attributes:
        task: name of the task.
        metric: name of the metric.
        a: score of the first model, averaged over probe seeds.
        b: score of the second model.
        difference: b − a.
        low: lower bound of its 95 % interval, by a paired bootstrap over tracks.
        high: upper bound.
        p: two-sided p-value of no difference.
        test: ``sign-flip``: a permutation test that swaps the models track by track, for metrics that are means over
            tracks; ``bootstrap``: twice the smaller share of resamples on either side of 0.
        p_holm: p after Holm's correction over all rows that `compare` returns.
        tracks: number of tracks that both predicted, with a finite result where they are scored one by one.
    """

    task: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    test: Literal["sign-flip", "bootstrap"]
    p_holm: float
    tracks: int


def compare(
    a: Mapping[str, Predictions],
    b: Mapping[str, Predictions],
    resamples: int = 2000,
    flips: int = 10_000,
    seed: int = 0,
) -> list[Difference]:
    """Return the difference between two models by each metric of each task that both have, in the first's order.

    Args:
        a: one model's predictions by task.
        b: the other model's predictions.
        resamples: number of resamples of the bootstrap.
        flips: number of random assignments of signs in the permutation test.
        seed: seed of both.

    Raises:
        MertError: the models did not predict the same tracks of a task, or not with the same truth.
    """
    rows = [row for task in a if task in b for row in _of_task(task, a[task], b[task], resamples, flips, seed)]
    corrected = holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values after Holm's step-down correction (1979), in the order given."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(ps, method="holm")[1].tolist() if ps else []


def sign_flip(differences: NDArray[np.float64], flips: int, seed: int) -> float:
    """Return the two-sided p-value that the mean of paired differences (tracks,) is 0.

    Where nothing differs between the models, a track's difference is as likely to have the other sign. With so few
    tracks that there are no more than ``flips`` assignments of signs, all are tried and the p-value is exact.
    """
    from scipy.stats import permutation_test

    differing = differences[differences != 0]
    if len(differing) < 2:
        return 1.0  # of no track, or of one, either sign gives the same mean
    return float(
        permutation_test(
            (differing,),
            lambda flipped, axis: np.abs(flipped.sum(axis=axis)),
            permutation_type="samples",
            alternative="greater",  # of the absolute sum: both sides at once
            n_resamples=flips,
            vectorized=True,
            batch=max(1, FLIPPED_FLOATS // len(differing)),
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _of_task(task: str, a: Predictions, b: Predictions, resamples: int, flips: int, seed: int) -> list[Difference]:
    models, rows = (a, _aligned(task, a, b)), []
    for metric in a.figures():
        if metric.points is None:
            scores = [float(metric(model.truth, model.outputs).mean()) for model in models]
            # The same seed draws the same tracks for both.
            drawn = [scores_of(metric, model.truth, model.outputs, resamples, seed) for model in models]
            rows.append(_by_bootstrap(task, metric.name, scores, drawn, len(a.ids)))
        else:
            earned = _both_known(task, metric.name, [metric.points(model.truth, model.outputs) for model in models])
            rows.append(_by_flips(task, metric.name, earned, resamples, flips, seed))
    for name in a.points:
        earned = _both_known(task, name, [model.points[name] for model in models])
        if is_median(name):
            medians = [resampled_scores(points, True, resamples, seed) for points in earned]
            scores, drawn = [float(median[0]) for median in medians], [median[1:] for median in medians]
            rows.append(_by_bootstrap(task, name, scores, drawn, earned[0].shape[1]))
        else:
            rows.append(_by_flips(task, name, earned, resamples, flips, seed))
    return rows


def _both_known(task: str, name: str, earned: Sequence[Points]) -> list[Points]:
    """Return what both models earned (seeds, tracks) on the tracks where it is finite."""
    known = np.all([np.isfinite(points).all(axis=0) for points in earned], axis=0)
    if not known.any():
        raise MertError(f"no track of {task} has a finite {name} by both models. Look at how they were scored.")
    return [points[:, known] for points in earned]


def _by_flips(task: str, name: str, earned: Sequence[Points], resamples: int, flips: int, seed: int) -> Difference:
    a, b = earned
    per_track = b.mean(axis=0) - a.mean(axis=0)
    low, high = interval(means_of(per_track[None], resamples, seed))
    p, difference = sign_flip(per_track, flips, seed), float(per_track.mean())
    scores = float(a.mean()), float(b.mean())
    return Difference(task, name, *scores, difference, low, high, p, "sign-flip", p, len(per_track))


def _by_bootstrap(
    task: str, name: str, scores: Sequence[float], drawn: Sequence[NDArray[np.float64]], tracks: int
) -> Difference:
    """Return the difference of two models' scores, from those of the same resamples by both (resamples,)."""
    differences = drawn[1] - drawn[0]
    differences = differences[np.isfinite(differences)]
    low, high = interval(differences)
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (1 + int(smaller)) / (1 + len(differences)))
    a, b = scores
    return Difference(task, name, a, b, b - a, low, high, p, "bootstrap", p, tracks)


def _aligned(task: str, a: Predictions, b: Predictions) -> Predictions:
    """Return the second model's predictions in the first's order of tracks."""
    index = {track: number for number, track in enumerate(b.ids)}
    missing = [track for track in a.ids if track not in index]
    if missing or len(a.ids) != len(b.ids):
        raise MertError(
            f"the models predicted different test tracks of {task}: {len(a.ids)} and {len(b.ids)}"
            + (f", {missing[0]} only one of them" if missing else "")
            + ". Probe both on the same data."
        )
    order = np.array([index[track] for track in a.ids], dtype=np.int64)
    if (a.metrics, a.classes, sorted(a.points)) != (b.metrics, b.classes, sorted(b.points)):
        raise MertError(
            f"the models' predictions for {task} have other metrics or classes. Probe both by one protocol."
        )
    truth: NDArray[Any] = b.truth[order] if len(b.truth) else b.truth
    if not np.array_equal(a.truth, truth):
        raise MertError(f"the models were scored by other labels of {task}. Probe both on the same data.")
    outputs = b.outputs[:, order] if len(b.truth) else b.outputs
    return replace(b, ids=a.ids, truth=truth, outputs=outputs, points={n: p[:, order] for n, p in b.points.items()})
