from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.datasets.base import Clip
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, embeddings
from mert_core.probing.results import Estimate
from mert_core.probing.robustness import DegradedSound, robustness_curves, sample_clips
from mert_core.probing.tasks import TASKS, Chunking
from tests.probing.sounds import Loudness, Noise


def clips(count: int, seconds: float = 0.3) -> list[Clip]:
    return [Clip(f"clip-{number}", "test", Noise(number, seconds), number) for number in range(count)]


def loudness(found: Embeddings, asked: Sequence[Clip]) -> Estimate:
    assert not found.missing
    assert len(found) == len(asked)
    value = float(found.take(found.rows(range(len(asked))))[0, :, 0].mean())
    return Estimate(value, value - 0.1, value + 0.1)


def test_curves_begin_clean_and_show_what_happens(tmp_path: Path) -> None:
    asked = clips(6)
    found = robustness_curves(Loudness(), TASKS["gtzan_genre"], asked, loudness, tmp_path)
    assert list(found) == list(DEFORMATIONS)
    clean = loudness(embeddings(Loudness(), [clip.sound for clip in asked], Chunking(), "mean", None), asked).value
    for name, points in found.items():
        first = {"level": DEFORMATIONS[name].clean, "label": "clean"}
        assert points[0] == first | {"value": clean, "low": clean - 0.1, "high": clean + 0.1}
        levels = DEFORMATIONS[name].levels
        assert [(point["level"], point["label"]) for point in points[1:]] == [
            (level, DEFORMATIONS[name].label(level)) for level in levels
        ]
    for point in found["gain"]:
        assert point["value"] == pytest.approx(clean * 10 ** (point["level"] / 20), rel=2e-3)
    assert found["noise"][-1]["value"] == pytest.approx(clean * 2**0.5, rel=0.15)
    assert found["lowpass"][-1]["value"] < clean


def test_the_same_clips_stand_behind_every_point(tmp_path: Path) -> None:
    asked = clips(4)
    asked[1] = Clip("broken", "test", Noise(1, broken="truncated"), 1)
    seen: list[list[str]] = []

    def score(found: Embeddings, chosen: Sequence[Clip]) -> Estimate:
        seen.append([clip.clip_id for clip in chosen])
        return loudness(found, chosen)

    robustness_curves(Loudness(), TASKS["gs_key"], asked, score, tmp_path)
    assert seen == [["clip-0", "clip-2", "clip-3"]] * len(seen)
    assert len(seen) == 1 + sum(len(item.levels) for name, item in DEFORMATIONS.items() if name != "pitch")
    with pytest.raises(MertError, match="none of the 1 sounds"):
        robustness_curves(Loudness(), TASKS["gs_key"], asked[1:2], score, tmp_path)


def test_a_degraded_sound_is_its_own_and_follows_from_its_identity() -> None:
    sound = Noise(0, 0.2)
    names = {DegradedSound(sound, name, level).identity for name, item in DEFORMATIONS.items() for level in item.levels}
    assert len(names | {sound.identity}) == 1 + sum(len(item.levels) for item in DEFORMATIONS.values())
    noisy, again = (DegradedSound(Noise(0, 0.2), "noise", 10.0) for _ in range(2))
    assert np.array_equal(noisy.waveform(), again.waveform())
    assert noisy.identity == again.identity
    left, right = noisy.channels() - sound.channels()
    assert noisy.channels().shape == (2, 4800)
    assert abs(float(np.corrcoef(left, right)[0, 1])) < 0.1, "noises of their own"


def test_sampled_clips_are_chosen_by_name_alone() -> None:
    many = clips(50)
    chosen = sample_clips(many, 12)
    assert len(chosen) == 12
    assert [clip.clip_id for clip in chosen] == [clip.clip_id for clip in many if clip in chosen]
    assert sample_clips(many[::-1], 12)[::-1] == chosen
    assert len([clip for clip in sample_clips(many + clips(60)[50:], 12) if clip in chosen]) >= 8
    assert sample_clips(many, 100) == many
