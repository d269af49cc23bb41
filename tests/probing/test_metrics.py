from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from mert_core.datasets.keys import KEYS
from mert_core.errors import MertError
from mert_core.probing.metrics import METRICS, figures, r2, weighted_key
from mert_core.probing.significance import resampled

TRACKS, CLASSES = 60, 7


def tagged(levels: int | None, seed: int = 0):
    """Truth (tracks, classes), a class always, one never, one once; outputs (2 probes, 2 seeds, tracks, classes)."""
    generator = np.random.default_rng(seed)
    truth = generator.random((TRACKS, CLASSES)) < 0.15
    truth[:, 2], truth[:, 4] = True, False
    truth[:, 5] = np.arange(TRACKS) == 7
    outputs = generator.normal(size=(2, 2, TRACKS, CLASSES)).astype(np.float32) + truth
    return truth, outputs if levels is None else np.round(outputs * levels) / levels


def by_sklearn(of, truth, outputs) -> float:
    mixed = (truth.any(axis=0)) & ~truth.all(axis=0)
    return of(truth[:, mixed], outputs[:, mixed], average="macro")


@pytest.mark.parametrize("levels", [None, 1, 2, 3])
@pytest.mark.parametrize(("name", "of"), [("roc_auc", roc_auc_score), ("ap", average_precision_score)])
def test_ranking_metrics_and_those_of_resamples_are_scikit_learns_with_and_without_ties(name, of, levels) -> None:
    truth, outputs = tagged(levels)
    expected = [[by_sklearn(of, truth, output) for output in row] for row in outputs]
    np.testing.assert_allclose(METRICS[name](truth, outputs), expected, rtol=1e-12)
    (counts,) = resampled(TRACKS, 9, seed=3)
    resamples = METRICS[name](truth, outputs, counts)
    assert resamples.shape == (2, 2, 9)
    lost = 0
    for number, count in enumerate(counts):
        rows = np.repeat(np.arange(TRACKS), count.astype(int))
        lost += (~truth[rows].any(axis=0)).sum() > (~truth.any(axis=0)).sum()
        expected = [[by_sklearn(of, truth[rows], output[rows]) for output in row] for row in outputs]
        np.testing.assert_allclose(resamples[..., number], expected, rtol=1e-9)
    assert lost, "no resample lost a class: the test no longer sees one left out"


def test_a_ranking_that_nothing_can_be_said_of_is_undefined() -> None:
    truth, outputs = np.ones((5, 2), dtype=bool), np.zeros((1, 5, 2))
    assert np.isnan(METRICS["roc_auc"](truth, outputs)).all()
    assert np.isnan(METRICS["ap"](truth, outputs, np.ones((3, 5), dtype=np.float32))).all()


def test_r2_is_scikit_learns_per_target_and_in_the_mean() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(TRACKS, 3)) * [1, 50, 0] + [0, 1000, 4]
    outputs = truth + generator.normal(size=(2, 3, TRACKS, 3)) * [0.5, 80, 0.1]
    outputs[1, 2, :, 2] = truth[:, 2]
    expected = [[r2_score(truth, output, multioutput="raw_values") for output in row] for row in outputs]
    np.testing.assert_allclose(r2(truth, outputs), expected, rtol=1e-10)
    np.testing.assert_allclose(METRICS["r2"](truth, outputs), np.mean(expected, axis=-1), rtol=1e-10)
    (counts,) = resampled(TRACKS, 9, seed=1)
    found = r2(truth, outputs, counts)
    for number, count in enumerate(counts):
        rows = np.repeat(np.arange(TRACKS), count.astype(int))
        expected = [[r2_score(truth[rows], o[rows], multioutput="raw_values") for o in row] for row in outputs]
        np.testing.assert_allclose(found[..., number, :], expected, rtol=1e-8)


def test_r2_is_shown_per_target() -> None:
    truth = np.random.default_rng(0).normal(size=(TRACKS, 2))
    outputs = truth[None] + [0.1, 2.0]
    shown = figures("r2", ("valence", "arousal"))
    assert [metric.name for metric in shown] == ["r2_valence", "r2_arousal"]
    np.testing.assert_allclose([metric(truth, outputs)[0] for metric in shown], r2(truth, outputs)[0])
    assert figures("ap", ("a",)) == [METRICS["ap"]]
    with pytest.raises(MertError, match="f1"):
        figures("f1", ())


def test_key_score_follows_mirex_over_all_keys() -> None:
    assert (KEYS[0], KEYS[11], KEYS[12], KEYS[21]) == ("C major", "B major", "C minor", "A minor")
    table = weighted_key(24)
    c_major, c_minor = np.zeros(24), np.zeros(24)
    c_major[[0, 7, 21, 12]] = 1, 0.5, 0.3, 0.2  # itself, G major, A minor, C minor
    c_minor[[12, 19, 3, 0]] = 1, 0.5, 0.3, 0.2  # itself, G minor, E-flat major, C major
    for step in range(12):
        turned = (np.arange(24) - step) % 12 + np.repeat([0, 12], 12)
        assert np.array_equal(table[step], c_major[turned])
        assert np.array_equal(table[12 + step], c_minor[turned])
    with pytest.raises(ValueError, match="24"):
        weighted_key(12)


def test_accuracy_counts_the_drawn_tracks_and_gives_nothing_for_a_class_unknown_to_training() -> None:
    accuracy, truth, outputs = METRICS["accuracy"], np.array([0, -1, 1]), np.eye(2)[[[0, 1, 0], [1, 0, 1]]]
    assert accuracy.points is not None
    assert accuracy.points(truth, outputs).tolist() == [[1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(accuracy(truth, outputs), [1 / 3, 1 / 3])
    counts = np.array([[3, 0, 0], [0, 1, 2]], dtype=np.float32)
    np.testing.assert_allclose(accuracy(truth, outputs, counts), [[1, 0], [0, 2 / 3]])
