from __future__ import annotations

import timeit

import numpy as np
import pytest
from mir_eval import beat
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probing.beat_decoder import TempoModel, best_beats, decode, f_measures, frame_targets, trim_seconds_of

RATE = 75.0


def beats_at(bpm: NDArray[np.float64] | float, seconds: float, first: float = 0.3) -> NDArray[np.float64]:
    """Seconds of beats; a tempo per second of time, or one."""
    tempo = np.broadcast_to(np.asarray(bpm, dtype=np.float64), int(np.ceil(seconds)) + 1)
    found, now = [], first
    while now < seconds:
        found.append(now)
        now += 60 / float(np.interp(now, np.arange(len(tempo)), tempo))
    return np.array(found)


def activation_of(
    beats: NDArray[np.float64], seconds: float, generator: np.random.Generator, noise: float = 0.0, rate: float = RATE
) -> NDArray[np.float64]:
    """Bumps of two frames' width on a floor of 0.02, with noise; (frames,)."""
    time = np.arange(int(seconds * rate)) / rate
    distance = np.abs(time[:, None] - beats[None]).min(axis=1, initial=np.inf)
    clean = 0.02 + 0.9 * np.exp(-0.5 * (distance * rate / 0.8) ** 2)
    return np.clip(clean + noise * np.abs(generator.normal(size=len(time))), 0, 1)


MODEL = TempoModel(RATE)


def _naive(activation: NDArray[np.float64], model: TempoModel) -> tuple[NDArray[np.int64], float]:
    """Viterbi with the whole transition matrix over (interval, position); the path of states, and its score."""
    states = [(interval, position) for interval in model.intervals for position in range(interval)]
    number = {state: index for index, state in enumerate(states)}
    transition = np.full((len(states), len(states)), -np.inf)
    for (interval, position), index in number.items():
        if position + 1 < interval:
            transition[index, number[interval, position + 1]] = 0.0
            continue
        for following in model.intervals:
            transition[index, number[following, 0]] = model.log_transition[
                interval - model.intervals[0], following - model.intervals[0]
            ]
    early = np.array([position / interval < 1 / model.observation_lambda for interval, position in states])
    high, low = model.log_observations(activation)
    score = np.full(len(states), -np.log(len(states))) + np.where(early, high[0], low[0])
    back = []
    for frame in range(1, len(activation)):
        ways = score[:, None] + transition
        back.append(ways.argmax(axis=0))
        score = ways.max(axis=0) + np.where(early, high[frame], low[frame])
    path = [int(score.argmax())]
    for came_from in back[::-1]:
        path.append(int(came_from[path[-1]]))
    return np.array([states[index] for index in path[::-1]]), float(score.max())


@pytest.mark.parametrize("frames", [1, 2, 5, 9, 60])
@pytest.mark.parametrize("shape", [(10.0, 86.0, 200.0, 5.0, 4.0), (8.0, 30.0, 120.0, 20.0, 3.0)])
def test_agrees_with_viterbi_over_all_states(shape: tuple[float, ...], frames: int) -> None:
    rate, lowest, highest, transition, observation = shape
    model = TempoModel(rate, lowest, highest, transition, observation)
    assert len(model.intervals) >= 5
    generator = np.random.default_rng(frames)
    for _ in range(8):
        activation = generator.uniform(0, 1, frames) ** 3
        path, score = _naive(activation, model)
        beats, found = best_beats(activation, model)
        assert found == pytest.approx(score, abs=1e-9)
        walked = [
            (interval, frame - start)
            for start, interval in beats
            for frame in range(max(start, 0), min(start + interval, frames))
        ]
        assert len(walked) == frames
        if frames == 60:  # in a moment of music many paths are equally good
            np.testing.assert_array_equal(walked, path)


@pytest.mark.parametrize(
    ("bpm", "rate"), [(58.0, RATE), (90.0, RATE), (120.0, RATE), (133.7, RATE), (208.0, RATE), (97.0, 50.0)]
)
def test_constant_tempo_at_any_frame_rate(bpm: float, rate: float) -> None:
    truth = beats_at(bpm, 20)
    found = decode(activation_of(truth, 20, np.random.default_rng(0), rate=rate), TempoModel(rate))
    assert len(found) == len(truth)
    assert np.abs(found - truth).max() < 1 / rate


@pytest.mark.parametrize(
    ("truth", "metric", "least"),
    [
        (beats_at(np.linspace(80, 150, 31), 30), "f_measure_20ms", 0.98),
        (np.concatenate([beats_at(90, 14.8), beats_at(128, 30, first=15.1)]), "f_measure", 0.97),
    ],
    ids=["gradual", "sudden"],
)
def test_changes_of_tempo(truth: NDArray[np.float64], metric: str, least: float) -> None:
    found = decode(activation_of(truth, 30, np.random.default_rng(0), noise=0.05), MODEL)
    assert f_measures(truth, found, 0)[metric] > least


def test_noise_and_missing_beats_are_bridged() -> None:
    generator = np.random.default_rng(1)
    truth = beats_at(110, 30)
    heard = truth[generator.uniform(size=len(truth)) > 0.3]
    activation = activation_of(heard, 30, generator, noise=0.15)
    assert f_measures(truth, decode(activation, MODEL), 0)["f_measure"] > 0.97
    loudest = np.flatnonzero(activation > 0.5) / RATE  # without a model of tempo the missing beats are missing
    assert f_measures(truth, loudest, 0)["f_measure"] < 0.85


def test_silence_has_no_beats_and_does_not_get_any_around_music() -> None:
    assert len(decode(np.zeros(500), MODEL)) == 0
    assert len(decode(np.zeros(0), MODEL)) == 0
    truth = beats_at(120, 20, first=8.0)
    found = decode(activation_of(truth, 30, np.random.default_rng(0)), MODEL)
    assert found[0] == pytest.approx(8.0, abs=0.02)
    assert found[-1] == pytest.approx(truth[-1], abs=0.02)


def test_half_a_minute_takes_little_time() -> None:
    activation = activation_of(beats_at(120, 30), 30, np.random.default_rng(0), noise=0.1)
    assert min(timeit.repeat(lambda: decode(activation, MODEL), number=1, repeat=6)) < 0.1


@pytest.mark.parametrize("bad", [np.full(90, 1.2), np.full(90, np.nan), np.zeros((2, 90))])
def test_what_is_no_probability_is_refused(bad: NDArray[np.float64]) -> None:
    with pytest.raises(MertError, match="probabilities"):
        decode(bad, MODEL)


@pytest.mark.parametrize("fields", [{"lowest_bpm": 200, "highest_bpm": 100}, {"frame_rate": 0.0}, {"frame_rate": 1.0}])
def test_impossible_models_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(MertError):
        TempoModel(**{"frame_rate": RATE, **fields})


def test_scores_are_mir_evals_with_beats_before_five_seconds_left_out() -> None:
    generator = np.random.default_rng(0)
    truth = np.sort(generator.uniform(0, 30, 55))
    found = np.sort(truth + generator.normal(0, 0.05, len(truth)))[generator.uniform(size=len(truth)) > 0.2]
    trimmed = f_measures(truth, found)
    kept = beat.trim_beats(truth), beat.trim_beats(found)
    assert trimmed["f_measure"] == beat.f_measure(*kept)
    assert trimmed["f_measure_20ms"] == beat.f_measure(*kept, f_measure_threshold=0.02)
    assert trimmed["f_measure_20ms"] < trimmed["f_measure"] < 1
    assert f_measures(truth, found, trim_seconds=0)["f_measure"] == beat.f_measure(truth, found)
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
    np.testing.assert_array_equal(np.flatnonzero(frame_targets([0.2], 75, 50.0)), [9, 10, 11])
    assert not frame_targets([], 20, 75.0).any()
