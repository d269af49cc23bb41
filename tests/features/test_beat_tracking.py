"""Beat tracking on music whose beats are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_core.audio.grid import FRAME_RATE, SAMPLE_RATE
from mert_core.features.beat_tracking import beat_frames, onset_strength
from mert_core.features.mel import LogMel


def strokes(beats_per_minute: float, seconds: float = 15.0) -> tuple[torch.Tensor, np.ndarray]:
    """Return noise bursts, every second one softer and with soft ones in between, and where they begin in seconds."""
    generator = np.random.default_rng(0)
    wave = 0.001 * generator.standard_normal(int(seconds * SAMPLE_RATE))
    period = 60.0 / beats_per_minute
    beats = np.arange(0.3, seconds - 0.3, period)
    for level, starts in ((0.3, beats), (0.03, beats + period / 2)):
        for start in starts[: len(beats) - 1]:
            burst = level * generator.standard_normal(1200) * np.exp(-np.arange(1200) / 300)
            first = int(start * SAMPLE_RATE)
            wave[first : first + 1200] += burst
    return torch.from_numpy(wave.astype(np.float32)), beats[:-1]


@pytest.mark.parametrize("beats_per_minute", [75, 96, 120, 160])
def test_beats_are_found_where_they_are(beats_per_minute: int) -> None:
    waveform, beats = strokes(beats_per_minute)
    strength = onset_strength(LogMel(precision=torch.float64)(waveform[None]))[0].numpy()
    found = beat_frames(strength) / FRAME_RATE
    nearest = np.abs(found[:, None] - beats).min(axis=0)
    assert (nearest < 0.07).mean() > 0.9  # the tolerance of beat evaluation
    assert len(found) <= 1.25 * len(beats)


def test_without_onsets_beats_keep_time() -> None:
    found = beat_frames(np.zeros(400))
    assert set(np.diff(found)) == {round(0.5 * FRAME_RATE)}
    assert len(found) >= 10
    assert beat_frames(np.zeros(1)).tolist() == [0]
    assert len(beat_frames(np.zeros(0))) == 0
