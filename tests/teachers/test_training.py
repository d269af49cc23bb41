"""Training of the acoustic teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.sampler import RandomCrops
from mert_core.errors import MertError
from mert_core.teachers.base import Sources
from mert_core.teachers.codec.train import RvqVaeSettings, train
from tests.teachers.conftest import SMALL


def params(**changes: Any) -> RvqVaeSettings:
    fields = {"codebooks": 3, "steps": 8, "weights": {"commitment": 0.05}, **changes}
    return RvqVaeSettings.model_validate(SMALL["rvqvae"] | fields)


def silent(values: Mapping[str, float], step: int | None) -> None:
    """Report nothing."""


def test_crops_are_a_pure_function_of_seed_and_step(sources: Sources) -> None:
    assert sources.music
    length = int(0.2 * SAMPLE_RATE)
    crops, again = (RandomCrops(sources.music, "train", length, 3, "the key") for _ in range(2))
    assert torch.equal(crops.batch(5, 4), again.batch(5, 4))
    assert not torch.equal(crops.batch(5, 4), crops.batch(6, 4))
    assert crops.batch(0, 64).shape == (64, length)


def test_crops_too_long_for_the_music_are_an_error(sources: Sources) -> None:
    with pytest.raises(MertError, match="crop_seconds"):
        train(params(crop_seconds=50.0), sources.music, 0, None, silent)  # type: ignore[arg-type]


def test_training_lowers_the_mel_distance_and_leaves_torchs_rng_alone(sources: Sources) -> None:
    seen: list[float] = []

    def report(values: Mapping[str, float], step: int | None) -> None:
        seen.extend(value for name, value in values.items() if name == "train/mel")

    before = torch.random.get_rng_state()
    settings = params(steps=41, learning_rate=3e-3, batch_clips=4)
    model, figures = train(settings, sources.music, 0, None, report)  # type: ignore[arg-type]
    assert torch.equal(before, torch.random.get_rng_state())
    assert seen[-1] < 0.8 * seen[0]
    assert not model.training
    # Of eight entries; over four seeds 0.62 to 1 at least, 0.87 to 1 on average.
    assert figures["usage_least"] > 0.25
    assert figures["usage_mean"] > 0.6


def test_interrupted_and_resumed_equals_uninterrupted(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mert_core.teachers.codec.train._SAVE_EVERY", 3)
    monkeypatch.setattr("mert_core.teachers.codec.train._LOG_EVERY", 1)

    def kill(values: Mapping[str, float], step: int | None) -> None:
        if step == 5:
            raise KeyboardInterrupt

    whole, _ = train(params(), sources.music, 1, None, silent)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        train(params(), sources.music, 1, tmp_path, kill)  # type: ignore[arg-type]
    steps: list[int | None] = []
    resumed, _ = train(params(), sources.music, 1, tmp_path, lambda values, step: steps.append(step))  # type: ignore[arg-type]
    assert steps[0] == 3
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
