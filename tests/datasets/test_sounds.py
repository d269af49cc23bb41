from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from mert_core.audio.decode import decode, decode_channels
from mert_core.audio.errors import UnusableAudio
from mert_core.datasets.sounds import FileSound
from tests.datasets.miniatures import write_sound


def test_channels_are_each_resampled_and_their_mean_is_the_waveform(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (44100, 2)).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, stereo, 44100, subtype="FLOAT")
    channels = FileSound(path).channels()
    assert channels.shape == (2, 24000) and channels.dtype == np.float32
    for channel in range(2):
        reference = soxr.resample(stereo[:, channel], 44100, 24000, quality="HQ")
        np.testing.assert_allclose(channels[channel], reference, atol=2e-6)
    np.testing.assert_allclose(FileSound(path).waveform(), channels.mean(axis=0), atol=2e-6)
    assert decode_channels(path).source_seconds == decode(path).source_seconds == 1.0


def test_identity_follows_the_bytes(tmp_path: Path) -> None:
    one, two = write_sound(tmp_path / "a.wav"), tmp_path / "b.wav"
    two.write_bytes(one.read_bytes())
    before = FileSound(two).identity
    assert FileSound(one).identity == before
    write_sound(two, frequency=330.0)
    os.utime(two, (time.time() + 5, time.time() + 5))
    assert FileSound(two).identity != before
    assert pickle.loads(pickle.dumps(FileSound(one))) == FileSound(one)
    with pytest.raises(UnusableAudio):
        _ = FileSound(tmp_path / "none.wav").identity


def test_damaged_sound_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"")
    for call in (FileSound(path).waveform, FileSound(path).channels):
        with pytest.raises(UnusableAudio, match="0 bytes"):
            call()
