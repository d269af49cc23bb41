from __future__ import annotations

import numpy as np
import pytest
from mir_eval import beat

from mert_core.probing.beat_decoder import f_measures, frame_targets, trim_seconds_of


def test_scores_are_mir_evals() -> None:
    generator = np.random.default_rng(0)
    truth = np.sort(generator.uniform(0, 30, 55))
    found = np.sort(truth + generator.normal(0, 0.05, len(truth)))[generator.uniform(size=len(truth)) > 0.2]
    trimmed = f_measures(truth, found)
    kept = beat.trim_beats(truth), beat.trim_beats(found)
    assert trimmed["f_measure"] == beat.f_measure(*kept)
    assert trimmed["f_measure_20ms"] == beat.f_measure(*kept, f_measure_threshold=0.02)
    assert trimmed["f_measure_20ms"] < trimmed["f_measure"] < 1
    assert f_measures(truth, found, trim_seconds=0)["f_measure"] == beat.f_measure(truth, found)


def test_trimming_drops_beats_before_five_seconds() -> None:
    truth = np.arange(0.5, 20, 0.5)
    late = truth[truth >= 5]
    assert f_measures(truth, late)["f_measure"] == 1
    assert f_measures(truth, late, trim_seconds=0)["f_measure"] < 1
    assert trim_seconds_of(30.0) == trim_seconds_of(15.0) == 5.0
    assert trim_seconds_of(10.0) == 0.0


@pytest.mark.filterwarnings("error")
def test_no_beats_score_nothing() -> None:
    assert f_measures(np.arange(10.0), np.zeros(0)) == {"f_measure": 0.0, "f_measure_20ms": 0.0}


def test_targets_are_widened_and_cut() -> None:
    targets = frame_targets([0.0, 0.2, 1.0], 75, 75.0)
    np.testing.assert_array_equal(np.flatnonzero(targets), [0, 1, 14, 15, 16, 74])
    np.testing.assert_array_equal(np.flatnonzero(frame_targets([0.2], 75, 50.0, widened=0)), [10])
    assert not frame_targets([], 20, 75.0).any()
