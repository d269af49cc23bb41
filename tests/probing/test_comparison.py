from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.probing.results import Predictions, predictions_path
from mert_core.probing.significance import compare, holm, sign_flip

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
    rows = compare({"stems": of_points(weak)}, {"stems": of_points(strong)})
    mean, median = rows
    assert (mean.metric, mean.test, median.metric, median.test) == ("sdr", "sign-flip", "sdr_museval", "bootstrap")
    assert mean.a == pytest.approx(np.nanmean(weak)) and mean.tracks == TRACKS - 1
    assert median.a == pytest.approx(np.nanmedian(weak.mean(axis=0))) and median.tracks == TRACKS - 1
    assert (median.difference, median.low, median.high) == pytest.approx((1, 1, 1)) and median.p_holm < 0.01


def of_points(earned: np.ndarray) -> Predictions:
    return Predictions(IDS, points={"sdr": earned, "sdr_museval": earned})


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


def test_predictions_are_kept_byte_for_byte(tmp_path) -> None:
    path = predictions_path(tmp_path, "demo/mtt")
    assert path == tmp_path / "answers" / "demo_mtt.npz"
    answers = replace(tags(0.5, 0), points={"f_measure": beats(0.5, 1).points["f_measure"]})
    answers.save(path)
    before = sha256_file(path)
    answers.save(path)
    assert sha256_file(path) == before
    found = Predictions.load(path)
    assert (found.ids, found.metrics, found.classes) == (answers.ids, answers.metrics, answers.classes)
    assert np.array_equal(found.truth, answers.truth) and np.array_equal(found.outputs, answers.outputs)
    assert np.array_equal(found.points["f_measure"], answers.points["f_measure"])
    assert [figure.name for figure in found.figures()] == ["roc_auc", "ap"]
    beats(0.5, 1).save(path)
    assert Predictions.load(path).metrics == ()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MertError, match="cannot be read"):
        Predictions.load(path)
    with pytest.raises(MertError, match="expected one of each track"):
        Predictions(IDS[1:], points={"f_measure": np.ones((2, TRACKS))})
