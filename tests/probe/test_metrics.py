from __future__ import annotations

import mir_eval
import numpy as np
import pytest

from mert_core.probe.bootstrap import interval
from mert_core.probe.metrics import KEYS, accuracy, item_points, weighted_key


def test_key_score_is_mir_evals_on_every_pair() -> None:
    table = weighted_key(24)
    for truth, reference in enumerate(KEYS):
        for guess, estimate in enumerate(KEYS):
            assert table[truth, guess] == mir_eval.key.weighted_score(reference, estimate), (reference, estimate)


def test_minor_keys_are_classes_12_to_23() -> None:
    assert (KEYS[0], KEYS[11], KEYS[12], KEYS[21]) == ("C major", "B major", "C minor", "A minor")
    assert weighted_key(24)[0, 21] == 0.3


def test_key_score_refuses_other_classes() -> None:
    with pytest.raises(ValueError, match="24"):
        weighted_key(12)


def test_a_class_unknown_to_training_earns_nothing() -> None:
    earned = item_points(accuracy(3), np.array([0, -1, 2]), np.array([[0, 2, 2], [1, 1, 2]]))
    assert earned.tolist() == [[1, 0, 1], [0, 0, 1]]


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


def test_more_seeds_on_the_same_items_do_not_narrow_the_interval() -> None:
    points = (np.random.default_rng(2).random((1, 400)) < 0.5).astype(float)
    assert interval(np.repeat(points, 3, axis=0), 500, seed=0) == interval(points, 500, seed=0)
