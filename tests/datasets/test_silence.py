"""Silence is found as a plain loop finds it, and cut out of all channels alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.audio.errors import UnusableAudio
from mert_core.datasets.vocalset import SilenceGate, Trimmed, sounding

RATE = 24000


@dataclass(frozen=True)
class Given:
    """A sound that is given."""

    sound: NDArray[np.float32]
    identity: str = "a"

    def waveform(self) -> NDArray[np.float32]:
        return self.sound.mean(axis=0)

    def channels(self) -> NDArray[np.float32]:
        return self.sound


def tone(seconds: float, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def by_hand(waveform: NDArray[np.float32], threshold: float, size: int, pause: int) -> list[bool]:
    """The rule again, window by window."""
    windows = [waveform[start : start + size] for start in range(0, len(waveform), size)]
    power = [sum(float(value) ** 2 for value in window) / len(window) for window in windows]
    loud = [10 * np.log10(max(value, 1e-30) / max(power)) >= -threshold for value in power]
    kept = list(loud)
    place = 0
    while place < len(loud):
        end = place
        while end < len(loud) and not loud[end]:
            end += 1
        if place > 0 and end < len(loud) and end - place < pause:
            kept[place:end] = [True] * (end - place)
        place = max(end, place + 1)
    return [flag for flag, window in zip(kept, windows, strict=True) for _ in window]


def test_leading_trailing_and_long_pauses_go_and_short_ones_stay() -> None:
    parts = [tone(0.5, 0.0), tone(1.0), tone(0.2, 0.001), tone(0.4), tone(0.6, 0.001), tone(0.3), tone(0.7, 0.0)]
    kept = sounding(np.concatenate(parts), SilenceGate())
    wanted = np.repeat([False, True, True, True, False, True, False], [len(part) for part in parts])
    assert np.array_equal(kept, wanted)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_rule_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = np.repeat(10.0 ** rng.uniform(-3, 0, 40), 300)
    waveform = (levels * rng.standard_normal(12000)).astype(np.float32)[: 12000 - 37 * seed]
    gate = SilenceGate(threshold_db=25.0, window_seconds=0.005, pause_seconds=0.03)
    assert sounding(waveform, gate).tolist() == by_hand(waveform, 25.0, 120, 6)


def test_the_threshold_is_relative_to_the_loudest_window() -> None:
    waveform = np.concatenate([tone(0.48), tone(0.48, 0.5 * 10 ** (-39.5 / 20)), tone(0.48, 0.5 * 10 ** (-40.5 / 20))])
    assert sounding(waveform, SilenceGate()).sum() == 2 * len(tone(0.48))
    assert np.array_equal(sounding(waveform, SilenceGate()), sounding(waveform / 20, SilenceGate()))


def test_all_channels_are_cut_alike() -> None:
    left, right = np.concatenate([tone(0.5, 0.0), tone(0.5)]), np.concatenate([tone(0.5, 0.0), -0.2 * tone(0.5)])
    trimmed = Trimmed(Given(np.stack([left, right])))
    assert np.array_equal(trimmed.channels(), np.stack([left[12000:], right[12000:]]))
    assert np.array_equal(trimmed.waveform(), trimmed.channels().mean(axis=0))


def test_identity_tells_sound_and_rule() -> None:
    sound = Given(np.zeros((1, 10), np.float32))
    one = Trimmed(sound).identity
    assert len(one) == 64 and one == Trimmed(sound).identity != sound.identity
    assert one != Trimmed(sound, SilenceGate(threshold_db=41.0)).identity
    assert one != Trimmed(Given(sound.sound, "b")).identity


@pytest.mark.parametrize("waveform", [np.zeros(5000), np.full(5000, 0.3), np.zeros(0)])
def test_silence_from_end_to_end_is_refused(waveform: NDArray[np.float64]) -> None:
    with pytest.raises(UnusableAudio, match="silent"):
        Trimmed(Given(waveform.astype(np.float32)[None])).waveform()
