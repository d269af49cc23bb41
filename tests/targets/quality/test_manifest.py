"""Each check over the manifest, on splits that leak in exactly that way."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from mert_core.config import GateConfig
from mert_core.data.shards import to_int16
from mert_core.targets.quality import check_alike, check_artists, check_duplicates
from mert_core.targets.track_stats import ALIKE_NUMBERS, EMPTY, fingerprint
from tests.targets.quality.conftest import tracks

TRAIN, VALID = 0, 1
SPLIT = [TRAIN, TRAIN, VALID, VALID]


def tune(seed: int, seconds: int = 12) -> np.ndarray:
    """Notes of random pitch and length with decaying harmonics."""
    generator, parts = np.random.default_rng(seed), []
    while sum(map(len, parts)) < seconds * 24000:
        length = int(generator.uniform(0.12, 0.5) * 24000)
        time, pitch = np.arange(length) / 24000, 220 * 2 ** (generator.integers(0, 25) / 12)
        overtones = sum(np.sin(2 * np.pi * pitch * number * time) / number for number in range(1, 6))
        parts.append(0.2 * overtones * np.exp(-4 * time))
    hiss = 1e-3 * generator.standard_normal(seconds * 24000)
    return (np.concatenate(parts)[: seconds * 24000] + hiss).astype(np.float32)


def as_mp3(waveform: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, 24000, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    stream.seek(0)
    return soundfile.read(stream, dtype="float32")[0]


def test_the_same_audio_in_two_splits() -> None:
    digests = np.array([7, 8, 9, 7], dtype=np.uint64)
    assert check_duplicates(tracks(digest=digests, split=[TRAIN, TRAIN, VALID, TRAIN]))[0].passed
    (failed,) = check_duplicates(tracks(digest=digests, split=SPLIT))
    assert failed.where == "tracks anna (train) and dora (valid)" and not failed.passed
    assert "remove one of the two" in failed.advice


def test_the_same_recording_encoded_again_and_shifted(limits: GateConfig) -> None:
    prints = [fingerprint(to_int16(tune(seed))[0]) for seed in range(3)]
    copy = fingerprint(to_int16(0.7 * as_mp3(tune(1))[5003:])[0])
    train = [(np.array([0]), np.stack(prints[:1])), (np.array([1]), np.stack(prints[1:2]))]
    other = [(np.array([2, 3]), np.stack([prints[2], copy]))]
    share, named = check_alike(tracks(split=SPLIT), other, train, limits)
    assert share.value == 0.5 and not share.passed
    assert named.where == "tracks bert (train) and dora (valid)" and named.value >= ALIKE_NUMBERS
    (passed,) = check_alike(tracks(split=SPLIT), other, train[:1], limits)
    assert passed.passed and passed.value == 0
    assert check_alike(tracks(split=SPLIT), [], train, limits)[0].passed


def test_tracks_without_peaks_are_not_alike(limits: GateConfig) -> None:
    empty = fingerprint(np.ones(48_000, dtype=np.int16))
    assert (empty == EMPTY).all()
    sides = [(np.array([0]), empty[None])], [(np.array([2]), empty[None])]
    assert check_alike(tracks(split=SPLIT), *sides, limits)[0].passed


def test_one_artist_in_two_splits(limits: GateConfig) -> None:
    good, bad = (tracks(split=SPLIT, artist=list(artists)) for artists in ("xxyz", "xyyz"))
    assert check_artists(good, limits)[0].passed
    (failed,) = check_artists(bad, limits)
    assert failed.where == "artist y (train and valid)" and not failed.passed
    assert "split by artist" in failed.advice
    (allowed,) = check_artists(bad, limits.model_copy(update={"shared_artists": "allow"}))
    assert allowed.passed and allowed.value == 1


@pytest.mark.parametrize("shift", [1, 512, 30_000])
def test_a_fingerprint_survives_a_shift(shift: int) -> None:
    waveform = to_int16(tune(5))[0]
    assert len(np.intersect1d(fingerprint(waveform), fingerprint(waveform[shift:]))) >= ALIKE_NUMBERS
