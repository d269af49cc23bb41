from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mert_core.errors import MertError
from mert_core.probing.tasks import TaskKind
from tests.probing.evaluate.planted import CLASSES, Planted, clip_set, evaluate, inputs_of, watched


@pytest.mark.parametrize(
    ("kind", "metrics", "shown"),
    [
        (TaskKind.SINGLE, ("accuracy",), {"accuracy"}),
        (TaskKind.MULTI, ("roc_auc", "ap"), {"roc_auc", "ap"}),
        (TaskKind.REGRESSION, ("r2",), {"r2_height", "r2_depth"}),
    ],
)
def test_the_state_that_holds_the_answer_is_chosen(kind: TaskKind, metrics: tuple[str, ...], shown: set[str]) -> None:
    result = evaluate(inputs_of(kind, metrics, clip_set(kind)))
    assert result.input == 3
    assert result.summary.value > 0.9
    assert set(result.metrics) == shown
    assert all(figure.low <= figure.value <= figure.high for figure in result.metrics.values())
    inputs = dict(result.by_input)
    assert list(inputs) == [0, 1, 2, 3, 4, 5, "weighted"]
    assert max(inputs[other] for other in (0, 1, 2, 4, 5)) < inputs[3] - 0.2
    assert inputs["weighted"] > inputs[0], "the learned sum finds the state, too"
    assert (result.tracks, len(result.per_seed), result.left_out, result.robustness) == (64, 3, {}, {})
    assert np.mean(result.per_seed) == pytest.approx(result.summary.value)


def test_shuffled_labels_give_chance() -> None:
    clips = clip_set(TaskKind.SINGLE, per_split=200, shuffled=5)
    result = evaluate(inputs_of(TaskKind.SINGLE, ("accuracy",), clips))
    assert result.summary.low < 0.25 < result.summary.high
    assert result.summary.value < 0.35


def test_the_test_split_decides_nothing() -> None:
    honest = clip_set(TaskKind.SINGLE)
    swapped = tuple(
        replace(clip, label=CLASSES[CLASSES.index(clip.label) - 1]) if clip.split == "test" else clip
        for clip in honest.clips
    )
    announced: list[tuple[int | str, float]] = []
    one, two = (
        evaluate(
            replace(
                inputs_of(TaskKind.SINGLE, ("accuracy",), clips),
                before_test=lambda chosen, rate: announced.append((chosen, rate)),
            )
        )
        for clips in (honest, replace(honest, clips=swapped))
    )
    assert one.summary.value > 0.95 > 0.1 > two.summary.value
    assert (one.input, one.rate, one.validation, one.by_input) == (two.input, two.rate, two.validation, two.by_input)
    assert np.array_equal(one.predictions.outputs, two.predictions.outputs)
    assert announced == [(one.input, one.rate)] * 2


def test_the_test_split_is_announced_before_it_is_read() -> None:
    seen: list[str] = []
    inputs = inputs_of(TaskKind.SINGLE, ("accuracy",), watched(clip_set(TaskKind.SINGLE), seen))
    evaluate(replace(inputs, before_test=lambda chosen, rate: seen.append("announced")))
    assert seen[0] == "announced"
    assert "read" in seen


def test_a_clip_is_the_mean_of_its_windows() -> None:
    clips = clip_set(TaskKind.SINGLE, windows=3)
    result = evaluate(inputs_of(TaskKind.SINGLE, ("accuracy",), clips, chunk_seconds=0.1))
    assert result.predictions.outputs.shape == (3, 64, 4)
    assert list(result.predictions.ids) == [clip.clip_id for clip in clips.of("test")]
    assert result.summary.value > 0.9


def test_deformed_clips_are_scored_again(tmp_path: Path) -> None:
    inputs = inputs_of(TaskKind.SINGLE, ("accuracy",), clip_set(TaskKind.SINGLE), caches=tmp_path, robust=True)
    robustness = evaluate(inputs).robustness
    assert set(robustness) == {"noise", "gain", "mp3", "pitch", "lowpass"}
    gain, noise = ([point["value"] for point in robustness[name]] for name in ("gain", "noise"))
    assert min(gain) > 0.9, "what counts zero crossings hardly hears a gain"
    assert noise[-1] < noise[0] - 0.3
    assert all(point["low"] <= point["value"] <= point["high"] for points in robustness.values() for point in points)


def test_a_class_that_training_lacks_earns_nothing_and_a_split_without_clips_is_named() -> None:
    clips = clip_set(TaskKind.SINGLE)
    others = tuple(
        replace(clip, label="unheard") if clip.split == "test" and number % 2 else clip
        for number, clip in enumerate(clips.clips)
    )
    result = evaluate(inputs_of(TaskKind.SINGLE, ("accuracy",), replace(clips, clips=others)))
    assert 0.4 < result.summary.value <= 0.5
    without = replace(clips, clips=tuple(clip for clip in clips.clips if clip.split != "valid"))
    with pytest.raises(MertError, match="no clip of the valid split"):
        evaluate(inputs_of(TaskKind.SINGLE, ("accuracy",), without))


def test_the_encoder_is_another_where_another_state_answers() -> None:
    inputs = replace(inputs_of(TaskKind.SINGLE, ("accuracy",), clip_set(TaskKind.SINGLE)), encoder=Planted(answer=5))
    assert evaluate(inputs).input == 5
