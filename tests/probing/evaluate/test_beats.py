from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool1d

from mert_core.config import load_config
from mert_core.datasets.base import Clip, ClipSet
from mert_core.errors import MertError
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.tasks import TASKS, Chunking
from tests.probing.evaluate.planted import evaluate, watched

SECONDS = 8.0
ANSWER = 2


@dataclass(frozen=True)
class Clicks:
    """Soft noise with a click of 15 ms at each beat."""

    bpm: float
    first: float
    seed: int

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"{self.bpm} {self.first} {self.seed}".encode()).hexdigest()

    def beats(self) -> NDArray[np.float64]:
        return np.arange(self.first, SECONDS, 60 / self.bpm)

    def waveform(self) -> NDArray[np.float32]:
        noise = np.random.default_rng(self.seed).normal(size=int(SECONDS * 24000))
        loud = np.full(len(noise), 0.02)
        for start in (self.beats() * 24000).astype(int):
            loud[start : start + 360] = 0.3
        return (noise * loud).astype(np.float32)

    def channels(self) -> NDArray[np.float32]:
        return self.waveform()[None]


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


def _clips(seed: int = 0) -> ClipSet:
    generator = np.random.default_rng(seed)
    clips = []
    for split, count in (("train", 8), ("valid", 3), ("test", 5)):
        for number in range(count):
            sound = Clicks(generator.uniform(70, 170), generator.uniform(0.05, 0.5), int(generator.integers(1 << 30)))
            clips.append(Clip(f"{split}-{number}", split, sound, sound.beats()))  # type: ignore[arg-type]
    return ClipSet("demo", "gtzan_rhythm", tuple(clips), ())


def _inputs(clips: ClipSet, repository: Path, chunk_seconds: float | None = None, **changes: Any) -> EvalInputs:
    settings = load_config(repository / "params.yaml").probe.of_demo()
    own = settings.beats.model_copy(update={"frames_share": 0.4, "batch_frames": 64})
    settings = settings.model_copy(
        update={"hidden": 16, "rates": [1e-3, 1e-2], "max_epochs": 8, "bootstrap": 200, "beats": own} | changes
    )
    task = replace(TASKS["demo/gtzan_rhythm"], chunking=Chunking(chunk_seconds))
    return EvalInputs(task, clips, Onsets(), settings, 7, None, lambda read, rate: None)


@pytest.mark.parametrize("chunk_seconds", [None, 4.0])
def test_the_state_that_hears_the_beats_is_chosen(repository: Path, chunk_seconds: float | None) -> None:
    announced: list[tuple[int | str, float]] = []
    inputs = _inputs(_clips(), repository, chunk_seconds)
    result = evaluate(replace(inputs, before_test=lambda read, rate: announced.append((read, rate))))
    assert result.input in (ANSWER, "weighted")
    assert announced == [(result.input, result.rate)]
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


def test_the_test_split_decides_nothing_and_is_announced_before_it_is_read(repository: Path) -> None:
    honest, seen = _clips(), []
    shifted = tuple(
        replace(clip, label=clip.label + 0.2) if clip.split == "test" else clip  # type: ignore[operator]
        for clip in honest.clips
    )
    clips = watched(honest, seen), watched(replace(honest, clips=shifted), seen)
    one, two = (
        evaluate(
            replace(_inputs(each, repository, max_epochs=4), before_test=lambda read, rate: seen.append("announced"))
        )
        for each in clips
    )
    assert one.summary.value > two.summary.value + 0.3
    assert (one.input, one.rate, one.validation, one.by_input) == (two.input, two.rate, two.validation, two.by_input)
    assert seen[0] == "announced"
    assert "read" in seen


def test_beats_that_are_nowhere_are_not_found(repository: Path) -> None:
    honest = _clips()
    generator = np.random.default_rng(3)
    moved = tuple(replace(clip, label=np.sort(generator.uniform(0, SECONDS, len(clip.label)))) for clip in honest.clips)
    result = evaluate(_inputs(replace(honest, clips=moved), repository, rates=[1e-3]))
    # Two windows of 70 ms around three random beats a second cover 0.4 of the time.
    assert result.summary.value < 0.45


def test_deformed_clips_are_scored_again(repository: Path, tmp_path: Path) -> None:
    inputs = _inputs(_clips(), repository, rates=[1e-2], max_epochs=6)
    robustness = inputs.settings.robustness.model_copy(update={"tasks": [inputs.task.name], "clips": 2})
    settings = inputs.settings.model_copy(update={"robustness": robustness})
    curves = evaluate(replace(inputs, settings=settings, caches=tmp_path)).robustness
    assert len(curves) >= 4
    assert all(points[0]["value"] > 0.8 for points in curves.values())
    assert min(point["value"] for points in curves.values() for point in points) < curves["noise"][0]["value"]


def test_clips_without_beats_are_named(repository: Path) -> None:
    clips = _clips()
    silent = tuple(replace(clip, label=np.zeros(0)) for clip in clips.clips)
    with pytest.raises(MertError, match="beat"):
        evaluate(_inputs(replace(clips, clips=silent), repository))
    without = tuple(clip for clip in clips.clips if clip.split != "valid")
    with pytest.raises(MertError, match="valid"):
        evaluate(_inputs(replace(clips, clips=without), repository))
