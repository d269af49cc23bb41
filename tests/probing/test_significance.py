from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mert_core.errors import MertError
from mert_core.probing import significance
from mert_core.probing.metrics import METRICS
from mert_core.probing.results import Predictions
from mert_core.probing.significance import (
    compare,
    holm,
    interval,
    mean_of,
    means_of,
    median_of,
    resampled,
    scores_of,
    sign_flip,
)


def interval_of_points(points: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    return interval(means_of(points, resamples, seed))


def test_interval_covers_the_true_score_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        low, high = interval_of_points((generator.random((1, 200)) < 0.7).astype(float), 300, seed=repeat)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_interval_has_the_width_of_theory_and_follows_its_seed() -> None:
    points = (np.random.default_rng(1).random((3, 700)) < 0.5).astype(float)
    low, high = interval_of_points(points, 2500, seed=5)
    assert low < points.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * points.mean(axis=0).std() / 700**0.5, rel=0.1)
    assert interval_of_points(points, 2500, seed=5) == (low, high)
    assert interval_of_points(points, 2500, seed=6) != (low, high)


def test_more_seeds_on_the_same_tracks_do_not_narrow_the_interval() -> None:
    points = (np.random.default_rng(2).random((1, 400)) < 0.5).astype(float)
    assert interval_of_points(np.repeat(points, 3, axis=0), 500, 0) == interval_of_points(points, 500, 0)


def test_resamples_do_not_depend_on_how_many_memory_holds(monkeypatch) -> None:
    points = np.random.default_rng(3).random((2, 50))
    whole = means_of(points, 300, seed=0)
    monkeypatch.setattr(significance, "BLOCK_FLOATS", 50 * 7)
    assert max(len(counts) for counts in resampled(50, 300, seed=0)) == 7
    assert means_of(points, 300, seed=0) == pytest.approx(whole, rel=1e-12)


def test_a_metric_is_taken_of_the_drawn_tracks_of_all_seeds() -> None:
    generator = np.random.default_rng(4)
    truth = generator.random((80, 3)) < 0.3
    outputs = truth + generator.normal(size=(2, 80, 3))
    labels = generator.integers(0, 3, 80)
    ranked, right = [], []
    for count in np.concatenate(list(resampled(80, 50, seed=9))).astype(int):
        rows = np.repeat(np.arange(80), count)
        ranked.append(np.mean([roc_auc_score(truth[rows], output[rows]) for output in outputs]))
        right.append(np.mean(outputs.argmax(axis=2)[:, rows] == labels[rows]))
    np.testing.assert_allclose(scores_of(METRICS["roc_auc"], truth, outputs, 50, seed=9), ranked, rtol=1e-9)
    np.testing.assert_allclose(scores_of(METRICS["accuracy"], labels, outputs, 50, seed=9), right, rtol=1e-9)


@pytest.mark.parametrize(("score", "expected"), [(mean_of, np.nanmean), (median_of, np.nanmedian)])
def test_tracks_without_a_value_do_not_count(score, expected) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=9)
    values[4] = np.nan
    drawn = generator.integers(0, 9, (50, 9))
    counts = np.stack([np.bincount(row, minlength=9) for row in drawn]).astype(np.float32)
    np.testing.assert_allclose(score(values, counts), expected(values[drawn], axis=1))
    assert np.isnan(score(np.full(9, np.nan), counts)).all()


def test_a_tagging_tasks_interval_takes_seconds() -> None:
    generator = np.random.default_rng(6)
    truth = generator.random((5000, 10)) < 0.05
    outputs = (truth + generator.normal(size=(3, 5000, 10))).astype(np.float32)
    start = time.process_time()
    low, high = interval(scores_of(METRICS["ap"], truth, outputs, 200, seed=0))
    assert time.process_time() - start < 5  # a twenty-fifth of 1,000 resamples and 50 classes
    assert low < METRICS["ap"](truth, outputs).mean() < high


TRACKS = 300
IDS = tuple(f"track {number}" for number in range(TRACKS))


def tags(signal: float, seed: int) -> Predictions:
    truth = np.random.default_rng(99).random((TRACKS, 3)) < 0.3
    noise = np.random.default_rng(seed).normal(size=(2, TRACKS, 3))
    return Predictions(IDS, ("roc_auc", "ap"), ("a", "b", "c"), truth, (signal * truth + noise).astype(np.float32))


def classes(share: float, seed: int) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(98).integers(0, 4, TRACKS)
    answered = np.where(generator.random((2, TRACKS)) < share, truth, (truth + 1) % 4)
    return Predictions(IDS, ("accuracy",), ("a", "b", "c", "d"), truth, np.eye(4, dtype=np.float32)[answered])


def beats(level: float, seed: int) -> Predictions:
    earned = level + 0.1 * np.random.default_rng(seed).normal(size=(2, TRACKS))
    return Predictions(IDS, points={"f_measure": earned})


def test_a_large_difference_is_significant_and_none_is_not() -> None:
    weak = {"tags": tags(0.5, 0), "classes": classes(0.5, 1), "beats": beats(0.5, 2)}
    strong = {"tags": tags(1.5, 3), "classes": classes(0.8, 4), "beats": beats(0.56, 5)}
    rows = compare(weak, strong)
    assert [(row.task, row.metric, row.test) for row in rows] == [
        ("tags", "roc_auc", "bootstrap"),
        ("tags", "ap", "bootstrap"),
        ("classes", "accuracy", "sign-flip"),
        ("beats", "f_measure", "sign-flip"),
    ]
    for row in rows:
        assert row.b > row.a and row.difference == pytest.approx(row.b - row.a)
        assert 0 < row.low < row.difference < row.high
        assert row.p <= row.p_holm < 0.01 and row.tracks == TRACKS
    alike = {"tags": tags(0.5, 6), "classes": classes(0.5, 7), "beats": beats(0.5, 8)}
    for row in compare(weak, alike):
        assert row.low < 0 < row.high and row.p_holm > 0.05
    for row in compare(weak, weak):
        assert row.difference == 0 and row.p == 1


def test_a_median_over_tracks_is_compared_as_such() -> None:
    generator = np.random.default_rng(0)
    level = generator.exponential(3, TRACKS)  # its mean is 3, its median 2.1
    level[7] = np.nan  # a stem that is silent
    weak = level + 0.1 * generator.normal(size=(3, TRACKS))
    strong = weak + 1
    models = [{"stems": Predictions(IDS, points={"sdr": each, "sdr_museval": each})} for each in (weak, strong)]
    mean, median = compare(*models)
    assert (mean.metric, mean.test, median.metric, median.test) == ("sdr", "sign-flip", "sdr_museval", "bootstrap")
    assert mean.a == pytest.approx(np.nanmean(weak)) and mean.tracks == TRACKS - 1
    assert median.a == pytest.approx(np.nanmedian(weak.mean(axis=0))) and median.tracks == TRACKS - 1
    assert (median.difference, median.low, median.high) == pytest.approx((1, 1, 1)) and median.p_holm < 0.01


def test_swapping_the_models_turns_the_signs() -> None:
    a, b = {"tags": tags(0.5, 0), "classes": classes(0.6, 1)}, {"tags": tags(0.8, 3), "classes": classes(0.66, 4)}
    for one, two in zip(compare(a, b), compare(b, a), strict=True):
        assert one.difference == -two.difference and one.p == two.p
        assert (one.low, one.high) == pytest.approx((-two.high, -two.low))


def test_sign_flips_of_few_tracks_are_exact_and_of_many_agree_with_a_t_test() -> None:
    assert sign_flip(np.array([1.0, 2.0, 3.0, 0.0]), 1000, seed=0) == 2 / 8, "all signs alike, of eight assignments"
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    assert sign_flip(differences, 9999, seed=0) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert sign_flip(differences, 9999, seed=0) == sign_flip(-differences, 9999, seed=0)


def test_p_is_uniform_where_nothing_differs() -> None:
    generator = np.random.default_rng(0)
    ps = [sign_flip(generator.normal(size=30), 300, seed) for seed in range(300)]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_holm_corrects_in_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_tracks_are_paired_by_name_not_by_order() -> None:
    a, b = classes(0.5, 1), classes(0.8, 4)
    order = np.random.default_rng(0).permutation(TRACKS)
    mixed = replace(b, ids=tuple(IDS[i] for i in order), truth=b.truth[order], outputs=b.outputs[:, order])
    assert compare({"classes": a}, {"classes": mixed}) == compare({"classes": a}, {"classes": b})


def test_models_with_other_tracks_or_labels_are_not_compared() -> None:
    a = classes(0.5, 1)
    fewer = replace(a, ids=IDS[1:], truth=a.truth[1:], outputs=a.outputs[:, 1:])
    with pytest.raises(MertError, match="different test tracks of classes: 300 and 299, track 0"):
        compare({"classes": a}, {"classes": fewer})
    with pytest.raises(MertError, match="other labels of classes"):
        compare({"classes": a}, {"classes": replace(a, truth=(a.truth + 1) % 4)})
    with pytest.raises(MertError, match="other metrics"):
        compare({"classes": a}, {"classes": replace(a, classes=("a", "b", "c", "e"))})
    assert compare({"classes": a}, {"tags": tags(0.5, 0)}) == []
