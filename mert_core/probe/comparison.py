"""Whether two models differ on a task: paired over the test tracks that both answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probe.answers import Answers
from mert_core.probe.bootstrap import means_of, percentiles, scores_of
from mert_core.probe.metrics import Metric, Points
from mert_core.probe.separation.intervals import is_median, resampled_scores

FLIPS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Difference:
    """One row of a table.

    Attributes:
        task: its name.
        metric: the figure's name.
        a: score of the first model, averaged over probe seeds.
        b: of the second.
        difference: b − a.
        low: of its 95 % interval, by a paired bootstrap over tracks.
        high: the same.
        p: two-sided, that there is no difference.
        test: ``sign-flip``: a permutation test that swaps the models track by track, for metrics that are means over
            tracks; ``bootstrap``: twice the smaller share of resamples on either side of 0.
        p_holm: p after Holm's correction over all rows that `compare` returns.
        tracks: that both answered, with a finite result where they are scored one by one.
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
    a: Mapping[str, Answers], b: Mapping[str, Answers], resamples: int = 2000, flips: int = 10_000, seed: int = 0
) -> list[Difference]:
    """Return the difference between two models by each metric of each task that both answered, in the first's order.

    Args:
        a: one model's answers by task.
        b: the other's.
        resamples: of the bootstrap.
        flips: of the permutation test.
        seed: of both.

    Raises:
        MertError: the models did not answer the same tracks of a task, or not with the same truth.
    """
    rows = [row for task in a if task in b for row in _of_task(task, a[task], b[task], resamples, flips, seed)]
    corrected = holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values after Holm's step-down correction (1979), in the order given."""
    values = np.asarray(ps, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    found = np.empty_like(values)
    found[order] = np.minimum(stepped, 1)
    return found.tolist()


def sign_flip(differences: NDArray[np.float64], flips: int, seed: int) -> float:
    """Return the two-sided p-value that the mean of paired differences (tracks,) is 0.

    Where nothing differs between the models, a track's difference is as likely to have the other sign.
    """
    generator = np.random.default_rng(seed)
    differing = differences[differences != 0]
    if not len(differing):
        return 1.0
    observed = abs(differing.sum())
    at_once = max(1, FLIPS_AT_ONCE // len(differing))
    as_far = 0
    for start in range(0, flips, at_once):
        signs = generator.integers(0, 2, (min(at_once, flips - start), len(differing)), dtype=np.int8)
        sums = (signs.astype(np.float64) * 2 - 1) @ differing
        as_far += int((np.abs(sums) >= observed * (1 - 1e-12)).sum())
    return (1 + as_far) / (1 + flips)


def _of_task(task: str, a: Answers, b: Answers, resamples: int, flips: int, seed: int) -> list[Difference]:
    b = _aligned(task, a, b)
    rows = []
    for figure in a.figures():
        if figure.points is None:
            rows.append(_by_bootstrap(task, figure, a, b, resamples, seed))
        else:
            found = (figure.points(each.truth, each.outputs) for each in (a, b))
            earned = _both_known(task, figure.name, *found)
            rows.append(_by_flips(task, figure.name, *earned, resamples, flips, seed))
    for name in a.points:
        earned = _both_known(task, name, a.points[name], b.points[name])
        if is_median(name):
            rows.append(_by_medians(task, name, *earned, resamples, seed))
        else:
            rows.append(_by_flips(task, name, *earned, resamples, flips, seed))
    return rows


def _both_known(task: str, name: str, a: Points, b: Points) -> tuple[Points, Points]:
    known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    if not known.any():
        raise MertError(f"no track of {task} has a finite {name} by both models. Look at how they were scored.")
    return a[:, known], b[:, known]


def _by_flips(task: str, name: str, a: Points, b: Points, resamples: int, flips: int, seed: int) -> Difference:
    per_track = b.mean(axis=0) - a.mean(axis=0)
    low, high = percentiles(means_of(per_track[None], resamples, seed))
    p = sign_flip(per_track, flips, seed)
    return Difference(
        task, name, float(a.mean()), float(b.mean()), float(per_track.mean()), low, high, p, "sign-flip", p,
        len(per_track),
    )  # fmt: skip


def _by_bootstrap(task: str, figure: Metric, a: Answers, b: Answers, resamples: int, seed: int) -> Difference:
    # The same seed draws the same tracks for both.
    drawn = [scores_of(figure, each.truth, each.outputs, resamples, seed) for each in (a, b)]
    scores = float(figure(a.truth, a.outputs).mean()), float(figure(b.truth, b.outputs).mean())
    return _of_resamples(task, figure.name, scores, drawn, len(a.ids))


def _by_medians(task: str, name: str, a: Points, b: Points, resamples: int, seed: int) -> Difference:
    of_a, of_b = (resampled_scores(each, True, resamples, seed) for each in (a, b))
    scores = float(of_a[0][0]), float(of_b[0][0])
    return _of_resamples(task, name, scores, (of_a[1], of_b[1]), a.shape[1])


def _of_resamples(
    task: str, name: str, scores: tuple[float, float], drawn: Sequence[NDArray[np.float64]], tracks: int
) -> Difference:
    """Return the difference of two scores, from those of the same resamples by both models."""
    differences = drawn[1] - drawn[0]
    differences = differences[np.isfinite(differences)]
    low, high = percentiles(differences)
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (1 + int(smaller)) / (1 + len(differences)))
    a, b = scores
    return Difference(task, name, a, b, b - a, low, high, p, "bootstrap", p, tracks)


def _aligned(task: str, a: Answers, b: Answers) -> Answers:
    """Return the second model's answers in the first's order of tracks."""
    where = {track: number for number, track in enumerate(b.ids)}
    missing = [track for track in a.ids if track not in where]
    if missing or len(a.ids) != len(b.ids):
        raise MertError(
            f"the models answered different test tracks of {task}: {len(a.ids)} and {len(b.ids)}"
            + (f", {missing[0]} only one of them" if missing else "")
            + ". Probe both on the same data."
        )
    order = np.array([where[track] for track in a.ids], dtype=np.int64)
    if (a.metrics, a.classes, sorted(a.points)) != (b.metrics, b.classes, sorted(b.points)):
        raise MertError(f"the models' answers to {task} have other metrics or classes. Probe both by one protocol.")
    truth: NDArray[Any] = b.truth[order] if len(b.truth) else b.truth
    if not np.array_equal(a.truth, truth):
        raise MertError(f"the models were judged by other labels of {task}. Probe both on the same data.")
    outputs = b.outputs[:, order] if len(b.truth) else b.outputs
    return replace(b, ids=a.ids, truth=truth, outputs=outputs, points={n: p[:, order] for n, p in b.points.items()})
