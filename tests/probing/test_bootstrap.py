from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mert_core.probing import significance
from mert_core.probing.metrics import METRICS
from mert_core.probing.significance import interval, interval_of, resampled


def test_interval_covers_the_true_score_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        low, high = interval((generator.random((1, 200)) < 0.7).astype(float), 300, seed=repeat)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_interval_has_the_width_of_theory_and_follows_its_seed() -> None:
    points = (np.random.default_rng(1).random((3, 700)) < 0.5).astype(float)
    low, high = interval(points, 2500, seed=5)
    assert low < points.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * points.mean(axis=0).std() / 700**0.5, rel=0.1)
    assert interval(points, 2500, seed=5) == (low, high)
    assert interval(points, 2500, seed=6) != (low, high)


def test_more_seeds_on_the_same_tracks_do_not_narrow_the_interval() -> None:
    points = (np.random.default_rng(2).random((1, 400)) < 0.5).astype(float)
    assert interval(np.repeat(points, 3, axis=0), 500, seed=0) == interval(points, 500, seed=0)


def test_an_interval_does_not_depend_on_how_many_resamples_memory_holds(monkeypatch) -> None:
    points = np.random.default_rng(3).random((2, 50))
    whole = interval(points, 300, seed=0)
    monkeypatch.setattr(significance, "BLOCK_FLOATS", 50 * 7)
    assert max(len(counts) for counts in resampled(50, 300, seed=0)) == 7
    assert interval(points, 300, seed=0) == pytest.approx(whole, rel=1e-12)


def test_a_metric_that_is_no_mean_is_taken_of_the_drawn_tracks_of_all_seeds() -> None:
    generator = np.random.default_rng(4)
    truth = generator.random((80, 3)) < 0.3
    outputs = truth + generator.normal(size=(2, 80, 3))
    drawn = np.concatenate(list(resampled(80, 50, seed=9))).astype(int)
    scores = []
    for count in drawn:
        rows = np.repeat(np.arange(80), count)
        scores.append(np.mean([roc_auc_score(truth[rows], output[rows]) for output in outputs]))
    found = interval_of(METRICS["roc_auc"], truth, outputs, 50, seed=9)
    np.testing.assert_allclose(found, np.quantile(scores, [0.025, 0.975]), rtol=1e-9)


def test_points_and_outputs_give_the_same_interval() -> None:
    generator = np.random.default_rng(5)
    truth, outputs = generator.integers(0, 4, 90), generator.normal(size=(3, 90, 4))
    metric = METRICS["accuracy"]
    assert metric.points is not None
    assert interval_of(metric, truth, outputs, 300, 1) == interval(metric.points(truth, outputs), 300, 1)


def test_a_tagging_tasks_interval_takes_seconds() -> None:
    generator = np.random.default_rng(6)
    truth = generator.random((5000, 10)) < 0.05
    outputs = (truth + generator.normal(size=(3, 5000, 10))).astype(np.float32)
    start = time.process_time()
    low, high = interval_of(METRICS["ap"], truth, outputs, 200, seed=0)
    assert time.process_time() - start < 5  # a twenty-fifth of 1,000 resamples and 50 classes
    assert low < METRICS["ap"](truth, outputs).mean() < high
