"""Each check over audio, on music broken in exactly that way."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mert_core.audio.decode import resample
from mert_core.audio.grid import HOP_SAMPLES
from mert_core.config import GateConfig
from mert_core.data.shards import to_int16
from mert_core.targets.quality import check_bandwidth, check_content, check_rate, check_silence
from mert_core.targets.track_stats import measure_track, spectrum_decibels, wall_hertz
from tests.targets.quality.conftest import tracks

RATE = 24000


def noise(seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate)).astype(np.float32)


def wall(waveform: np.ndarray) -> float:
    return wall_hertz(spectrum_decibels(to_int16(waveform)[0]))


def test_seconds_of_another_rate() -> None:
    samples = np.array([240_000, 240_000, 72_000, 96_000])
    assert check_rate(tracks(samples=samples, seconds=samples / RATE))[0].passed
    seconds = samples / RATE
    seconds[1] = samples[1] / 16_000
    (failed,) = check_rate(tracks(samples=samples, seconds=seconds))
    assert (failed.where, failed.value, failed.passed) == ("track bert", 16_000, False)
    assert "remake the corpus" in failed.advice


def test_the_manifest_points_at_other_audio() -> None:
    assert check_content(tracks(same_audio=np.ones(4, dtype=bool)))[0].passed
    (failed,) = check_content(tracks(same_audio=np.array([True, True, False, True])))
    assert failed.where == "track carl" and not failed.passed and "dvc checkout data/corpus" in failed.advice


def test_statistics_have_the_hash_of_the_samples() -> None:
    pcm = to_int16(noise())[0]
    assert measure_track(0, pcm)["sha256"].tobytes() == hashlib.sha256(pcm.tobytes()).digest()


@pytest.mark.parametrize(("rate", "lowest", "highest"), [(8000, 3700, 4100), (11025, 5000, 5600)])
def test_music_from_a_lower_rate_ends_in_a_wall(rate: int, lowest: float, highest: float) -> None:
    assert lowest < wall(resample(noise(rate=rate), rate)) < highest


def test_music_of_the_true_rate_ends_in_no_wall() -> None:
    time = np.arange(4 * RATE) / RATE
    tone = 0.4 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    harmonics = sum(0.2 / number * np.sin(2 * np.pi * 1760 * number * time) for number in range(1, 4))
    dull = np.cumsum(noise()) / 100  # brown noise: 6 dB less with every octave
    assert [wall(waveform) for waveform in (noise(), tone, harmonics.astype(np.float32), dull - dull.mean())] == [0] * 4


def test_upsampled_tracks_are_named_with_both_rates(limits: GateConfig) -> None:
    music = tracks(
        wall_hertz=np.array([0, 3900, 0, 3900], dtype=np.float32), source_rate=[44_100, 44_100, 48_000, 8000]
    )
    share, named = check_bandwidth(music, limits)
    assert share.value == 0.25 and not share.passed  # the last one's source is honest
    assert named.where == "track bert" and named.value == pytest.approx(0.325)
    assert "resampled from 8,000 Hz, but its source claims 44,100 Hz" in named.advice
    (few,) = check_bandwidth(music, limits.model_copy(update={"max_upsampled": 0.25}))
    assert few.passed


def test_silence_in_all_and_by_track(limits: GateConfig) -> None:
    music = to_int16(noise())[0]
    quiet = music.copy()
    quiet[: len(quiet) * 97 // 100 // HOP_SAMPLES * HOP_SAMPLES] //= 1000  # 3 steps of 16 bits: -80 dB
    silent = np.array([int(measure_track(0, pcm)["silent_frames"]) for pcm in (music, music, quiet, music)])
    frames = np.full(4, len(music) // HOP_SAMPLES)
    table = tracks(silent_frames=silent, frames=frames)
    assert silent[0] == 0 and 0.96 < silent[2] / frames[2] < 0.98
    whole, share, named = check_silence(table, limits)
    assert whole.passed and not share.passed and share.value == 0.25
    assert named.where == "track carl" and not named.passed and "listen" in named.advice
    whole, *_ = check_silence(table, limits.model_copy(update={"max_silence": 0.2}))
    assert not whole.passed and whole.value == pytest.approx(silent[2] / frames.sum())
