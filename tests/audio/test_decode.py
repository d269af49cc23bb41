"""Decoding real files of every format, rate and channel count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mert_core.audio.decode import Resampler, check_music, decode, resample
from mert_core.audio.errors import UnusableAudio

FORMATS = {
    "wav": {"subtype": "PCM_16"},
    "flac": {},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
RATES = {"opus": (8000, 48000), "mp3": (8000, 22050, 44100, 48000)}
CASES = [
    (kind, rate, channels)
    for kind in FORMATS
    for rate in RATES.get(kind, (8000, 22050, 44100, 48000, 96000))
    for channels in ((1, 2) if kind == "mp3" else (1, 2, 6))
]


def tone(rate: int, seconds: float = 2.0, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("kind", "rate", "channels"), CASES)
def test_every_format_rate_and_channel_count(tmp_path: Path, kind: str, rate: int, channels: int) -> None:
    """One channel holds the tone, the others silence: the mean divides it by their number."""
    path = tmp_path / f"tone.{kind}"
    sound = np.zeros((rate * 2, channels), dtype=np.float32)
    sound[:, 0] = tone(rate)
    soundfile.write(path, sound, rate, **FORMATS[kind])
    decoded = decode(path)
    assert (decoded.waveform.dtype, decoded.waveform.ndim, decoded.source_rate) == (np.float32, 1, rate)
    assert decoded.source_seconds == pytest.approx(2.0, abs=0.06)
    assert len(decoded.waveform) == pytest.approx(48000, abs=0.06 * 24000)
    middle = decoded.waveform[12000:36000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == 440  # one bin is one hertz
    expected = 0.5 / channels / np.sqrt(2)
    lossy = kind in {"ogg", "opus", "mp3"}
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(expected, rel=0.12 if lossy else 0.002)


def test_24_khz_passes_unchanged(tmp_path: Path) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 48000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, 24000, subtype="PCM_16")
    assert np.array_equal(decode(tmp_path / "a.wav").waveform * 32768, pcm)


def test_what_lies_above_12_khz_does_not_fold_back() -> None:
    low = np.sqrt(np.mean(resample(tone(44100, hertz=13000), 44100)[2400:-2400] ** 2))
    assert low < 0.5 * 10 ** (-90 / 20)


def test_resampling_does_not_depend_on_the_blocks_and_has_no_delay() -> None:
    wave = np.random.default_rng(0).standard_normal(44101 * 2).astype(np.float32)
    whole = resample(wave, 44101)
    stream = Resampler(44101)
    starts = range(0, len(wave), 999)
    parts = [stream.push(wave[start : start + 999], last=start + 999 >= len(wave)) for start in starts]
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(whole) == 48000
    click = np.zeros(48000, dtype=np.float32)
    click[24000] = 1
    assert np.argmax(resample(click, 48000)) == 12000


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM"])
def test_wav_subtypes(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(24000), 24000, subtype=subtype)
    assert np.corrcoef(decode(tmp_path / "a.wav").waveform[:48000], tone(24000))[0, 1] > 0.98


def test_relatives_of_wav_and_a_wrong_suffix(tmp_path: Path) -> None:
    for name, container in (("a.wav", "WAVEX"), ("b.wav", "RF64"), ("c.mp3", "FLAC")):
        soundfile.write(tmp_path / name, tone(24000), 24000, format=container, subtype="PCM_16")
        assert len(decode(tmp_path / name).waveform) == 48000


@pytest.mark.parametrize(
    ("wave", "reason"), [(np.zeros(96000), "silent"), (np.full(96000, 0.3), "silent"), (tone(24000, 2.9), "too short")]
)
def test_silence_and_snippets_are_no_music_and_quiet_music_is(tmp_path: Path, wave: np.ndarray, reason: str) -> None:
    soundfile.write(tmp_path / "a.wav", wave, 24000)
    with pytest.raises(UnusableAudio) as caught:
        check_music(decode(tmp_path / "a.wav"), min_seconds=3.0)
    assert caught.value.reason == reason
    soundfile.write(tmp_path / "a.wav", tone(24000, 3.0) * 0.001, 24000, subtype="FLOAT")
    check_music(decode(tmp_path / "a.wav"), min_seconds=3.0)
