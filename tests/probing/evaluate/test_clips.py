from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mert_core.errors import MertError
from mert_core.probing.tasks import TaskKind
from tests.probing.evaluate.planted import CLASSES, clip_set, evaluate, inputs_of, relabeled, watched, without


@pytest.mark.parametrize(
    ("kind", "metrics", "answer", "shown"),
    [
        (TaskKind.SINGLE, ("accuracy",), 3, {"accuracy"}),
        (TaskKind.MULTI, ("roc_auc", "ap"), 5, {"roc_auc", "ap"}),
        (TaskKind.REGRESSION, ("r2",), 3, {"r2_height", "r2_depth"}),
    ],
)
def test_the_state_that_holds_the_answer_is_chosen(
    kind: TaskKind, metrics: tuple[str, ...], answer: int, shown: set[str]
) -> None:
    result = evaluate(inputs_of(kind, clip_set(kind), metrics=metrics, answer=answer))
    assert result.input == answer
    assert result.summary.value > 0.9
    assert set(result.metrics) == shown
    assert all(figure.low <= figure.value <= figure.high for figure in result.metrics.values())
    inputs = dict(result.by_input)
    assert list(inputs) == [0, 1, 2, 3, 4, 5, "weighted"]
    assert max(inputs[other] for other in range(6) if other != answer) < inputs[answer] - 0.2
    assert inputs["weighted"] > inputs[0], "the learned sum finds the state, too"
    assert (result.tracks, len(result.per_seed), result.left_out, result.robustness) == (64, 3, {}, {})
    assert np.mean(result.per_seed) == pytest.approx(result.summary.value)


def test_shuffled_labels_give_chance() -> None:
    result = evaluate(inputs_of(TaskKind.SINGLE, clip_set(TaskKind.SINGLE, per_split=200, shuffled=5)))
    assert result.summary.low < 0.25 < result.summary.high
    assert result.summary.value < 0.35


def test_the_test_split_decides_nothing_and_is_announced_before_it_is_read() -> None:
    honest = clip_set(TaskKind.SINGLE)
    swapped = relabeled(honest, "test", lambda label: CLASSES[CLASSES.index(label) - 1])
    seen: tuple[list[Any], list[Any]] = ([], [])
    one, two = (
        evaluate(inputs_of(TaskKind.SINGLE, watched(clips, log)), log)
        for clips, log in zip((honest, swapped), seen, strict=True)
    )
    assert one.summary.value > 0.95 > 0.1 > two.summary.value
    assert (one.input, one.rate, one.validation, one.by_input) == (two.input, two.rate, two.validation, two.by_input)
    assert np.array_equal(one.predictions.outputs, two.predictions.outputs)
    for first, *others in seen:
        assert first == (one.input, one.rate)
        assert set(others) == {"read"}


def test_a_clip_is_the_mean_of_its_windows() -> None:
    clips = clip_set(TaskKind.SINGLE, windows=3)
    result = evaluate(inputs_of(TaskKind.SINGLE, clips, chunk_seconds=0.1))
    assert result.predictions.outputs.shape == (3, 64, 4)
    assert list(result.predictions.ids) == [clip.clip_id for clip in clips.of("test")]
    assert result.summary.value > 0.9


def test_deformed_clips_are_scored_again(tmp_path: Path) -> None:
    inputs = inputs_of(TaskKind.SINGLE, clip_set(TaskKind.SINGLE), caches=tmp_path, robust=16)
    robustness = evaluate(inputs).robustness
    assert set(robustness) == {"noise", "gain", "mp3", "pitch", "lowpass"}
    gain, noise = ([point["value"] for point in robustness[name]] for name in ("gain", "noise"))
    assert min(gain) > 0.9, "what counts zero crossings hardly hears a gain"
    assert noise[-1] < noise[0] - 0.3
    assert all(point["low"] <= point["value"] <= point["high"] for points in robustness.values() for point in points)


def test_a_class_that_training_lacks_earns_nothing_and_a_split_without_clips_is_named() -> None:
    clips = clip_set(TaskKind.SINGLE)
    labels = iter(range(64))
    others = relabeled(clips, "test", lambda label: "unheard" if next(labels) % 2 else label)
    assert 0.4 < evaluate(inputs_of(TaskKind.SINGLE, others)).summary.value <= 0.5
    with pytest.raises(MertError, match=r"no clip of the valid split can be used \(it has none\)"):
        evaluate(inputs_of(TaskKind.SINGLE, without(clips, "valid")))
    with pytest.raises(MertError, match=r"no clip of the train split can be used \(none has a class\)"):
        evaluate(inputs_of(TaskKind.SINGLE, relabeled(clips, "train", lambda label: "unheard")))
