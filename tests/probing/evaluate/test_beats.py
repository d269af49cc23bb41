from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from mert_core.config import load_config
from mert_core.datasets.base import Clip, ClipSet
from mert_core.errors import MertError
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.tasks import TASKS, Chunking
from tests.probing.evaluate.planted import evaluate, relabeled, small_inputs, watched, without
from tests.probing.separation.material import ArraySound

SECONDS = 8.0
ANSWER = 2


class Onsets:
    """Three hidden states of width 4, 100 frames per second: noise, but for one number: how loud it is."""

    device, states, width, frame_rate = "cpu", 3, 4, 100.0

    def pooled(self, waveform: Tensor) -> Tensor:
        return self.frames(waveform).mean(dim=2)

    def frames(self, waveform: Tensor) -> Tensor:
        loud = max_pool1d(waveform.unfold(1, 240, 240).abs().mean(dim=2), 3, 1, 1)
        seed = int(waveform.abs().sum().item() * 1000) % 2**31
        found = torch.randn(3, *loud.shape, 4, generator=torch.Generator().manual_seed(seed))
        found[ANSWER, ..., 1] += 60 * loud
        return found

    def describe(self) -> dict[str, Any]:
        return {"encoder": "onsets"}


def _clips() -> ClipSet:
    """Return clips of soft noise with a click of 15 ms at each beat."""
    generator = np.random.default_rng(0)
    clips = []
    for number, split in enumerate(["train"] * 8 + ["valid"] * 3 + ["test"] * 5):
        beats = np.arange(generator.uniform(0.05, 0.5), SECONDS, 60 / generator.uniform(70, 170))
        loud = np.full(int(SECONDS * 24000), 0.02)
        for start in (beats * 24000).astype(int):
            loud[start : start + 360] = 0.3
        sound = ArraySound((generator.normal(size=(1, len(loud))) * loud).astype(np.float32))
        clips.append(Clip(f"{split}-{number:02d}", split, sound, beats))  # type: ignore[arg-type]
    return ClipSet("demo", "gtzan_rhythm", tuple(clips), ())


def _inputs(clips: ClipSet, chunk_seconds: float | None = None, **changes: Any) -> EvalInputs:
    own = load_config(Path(__file__).parents[3] / "params.yaml").probe.of_demo().beats
    own = own.model_copy(update={"frames_share": 0.4, "batch_frames": 64})
    task = replace(TASKS["demo/gtzan_rhythm"], chunking=Chunking(chunk_seconds))
    small = {"hidden": 16, "rates": [1e-3, 1e-2], "max_epochs": 8, "beats": own}
    return small_inputs(task, clips, Onsets(), **small | changes)


@pytest.mark.parametrize("chunk_seconds", [None, 4.0])
def test_the_state_that_hears_the_beats_is_chosen(chunk_seconds: float | None) -> None:
    result = evaluate(_inputs(_clips(), chunk_seconds))
    assert result.input in (ANSWER, "weighted")
    assert result.summary.value > 0.95
    assert result.metrics["f_measure_20ms"].value > 0.9
    by_input = dict(result.by_input)
    assert list(by_input) == [0, 1, 2, "weighted"]
    assert by_input[ANSWER] > max(by_input[0], by_input[1]) + 0.3
    assert (result.tracks, result.left_out, result.robustness) == (5, {}, {})
    earned = result.predictions.points["f_measure"]
    assert earned.shape == (3, 5)
    assert earned.mean() == pytest.approx(result.summary.value)
    assert result.per_seed == pytest.approx(earned.mean(axis=1).tolist())
    assert result.summary.low <= result.summary.value <= result.summary.high


def test_the_test_split_decides_nothing_and_is_announced_before_it_is_read() -> None:
    honest = _clips()
    shifted = relabeled(honest, "test", lambda beats: beats + 0.2)
    seen: tuple[list[Any], list[Any]] = ([], [])
    one, two = (
        evaluate(_inputs(watched(clips, log), max_epochs=4), log)
        for clips, log in zip((honest, shifted), seen, strict=True)
    )
    assert one.summary.value > two.summary.value + 0.3
    assert (one.input, one.rate, one.validation, one.by_input) == (two.input, two.rate, two.validation, two.by_input)
    for first, *others in seen:
        assert first == (one.input, one.rate)
        assert set(others) == {"read"}


def test_beats_that_are_nowhere_are_not_found() -> None:
    generator = np.random.default_rng(3)
    moved = relabeled(_clips(), None, lambda beats: np.sort(generator.uniform(0, SECONDS, len(beats))))
    result = evaluate(_inputs(moved, rates=[1e-3]))
    # Two windows of 70 ms around three random beats a second cover 0.4 of the time.
    assert result.summary.value < 0.45


def test_deformed_clips_are_scored_again(tmp_path: Path) -> None:
    curves = evaluate(_inputs(_clips(), rates=[1e-2], max_epochs=6, robust=2, caches=tmp_path)).robustness
    assert len(curves) >= 4
    assert all(points[0]["value"] > 0.8 for points in curves.values())
    assert min(point["value"] for points in curves.values() for point in points) < curves["noise"][0]["value"]


def test_clips_without_beats_are_named() -> None:
    with pytest.raises(MertError, match=r"no frame .* is near a beat"):
        evaluate(_inputs(relabeled(_clips(), None, lambda beats: np.zeros(0))))
    with pytest.raises(MertError, match="no clip of the valid split"):
        evaluate(_inputs(without(_clips(), "valid")))
