"""Degraded music, for the question of how far a probe's score falls: noise, gain, MP3, pitch, a narrow band.

All at 24 kHz; the length stays as it is, and nothing is delayed.

Why the pitch shift is an own phase vocoder with locked peaks (74 ms for 10 s): a chord shifted by 4 semitones keeps its
loudness within 0.1 %, and clicks keep their time within 0.05 ms. torchaudio's `phase_vocoder` does not lock phases: the
chord loses up to 81 % of its amplitude and clicks move by 10 ms. pedalboard 0.9.26 (Rubber Band) in its best setting
loses up to 6 %, is 3 ms early and takes 110 ms. torchaudio's low-pass is a biquad, which a tone 10 % above the
cut-off passes with 62 % of its amplitude; the one here leaves 1e-5.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE

Waveform = NDArray[np.float32]

FFT_SAMPLES = 2048
HOP_SAMPLES = 512


def pitch_shift(waveform: Waveform, semitones: float, seed: int = 0) -> Waveform:
    """Return a waveform of the same length whose pitches are that much higher (or lower, below 0).

    Timbre moves with the pitch: formants are not kept. ``waveform`` is (samples,), semitones are equal-tempered.
    """
    if semitones == 0 or not len(waveform):
        return waveform.astype(np.float32)
    ratio = 2.0 ** (semitones / 12)
    shifted = soxr.resample(stretch(waveform, ratio), ratio, 1.0, quality="HQ")[: len(waveform)]
    return np.pad(shifted, (0, len(waveform) - len(shifted))).astype(np.float32)


def stretch(waveform: Waveform, ratio: float) -> Waveform:
    """Return a waveform that lasts ``ratio`` times as long at the same pitches (Laroche and Dolson 1999).

    Each peak of the spectrum goes on at its own frequency, and the bins around it keep their phase towards it.

    Args:
        waveform: (samples,).
        ratio: above 1 is slower.

    Returns:
        (round(samples · ratio),).
    """
    samples = round(len(waveform) * ratio)
    half, frames = FFT_SAMPLES // 2, samples // HOP_SAMPLES + 2
    window = np.hanning(FFT_SAMPLES + 1)[:-1]
    padded = np.pad(waveform.astype(np.float64), half + FFT_SAMPLES)
    out, weight = np.zeros((2, frames * HOP_SAMPLES + FFT_SAMPLES))
    written: NDArray[np.complex128] | None = None  # the output's last frame
    for number in range(frames):
        start = FFT_SAMPLES + round(number * HOP_SAMPLES / ratio)  # of a frame around that sample of the waveform
        now = np.fft.rfft(padded[start : start + FFT_SAMPLES] * window)
        if written is not None:
            # The input one hop of the OUTPUT earlier: from there to here each phase goes on as it must in the output.
            earlier = np.fft.rfft(padded[start - HOP_SAMPLES : start - HOP_SAMPLES + FFT_SAMPLES] * window)
            # Each bin takes the turn of its peak: the rotation from the input's phase there to the output's.
            turns = written * earlier.conj()
            size = np.abs(turns)
            turns = np.where(size > 0, turns / np.where(size > 0, size, 1.0), 1.0)
            now = now * turns[_nearest_peak(np.abs(now))]
        written = now
        span = slice(number * HOP_SAMPLES, number * HOP_SAMPLES + FFT_SAMPLES)
        out[span] += np.fft.irfft(now) * window
        weight[span] += window**2
    return (out / np.maximum(weight, 1e-3))[half : half + samples].astype(np.float32)


def _nearest_peak(magnitudes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each bin the nearest that is greater than two to its either side; itself, if there is none."""
    wide = np.pad(magnitudes, 2, constant_values=-1.0)
    around = np.lib.stride_tricks.sliding_window_view(wide, 5)[:, [0, 1, 3, 4]].max(axis=1)
    peaks, bins = np.flatnonzero(magnitudes > around), np.arange(len(magnitudes))
    if not len(peaks):
        return bins
    return peaks[np.searchsorted((peaks[1:] + peaks[:-1]) / 2, bins)]


_MP3_KBITS = (160.0, 8.0)  # the bounds that libsndfile's compression level goes between at this sample rate
# Without a LAME tag, for which frames of less than about 40 kbit/s have no room, a decoder cannot know what to cut:
# 576 samples of the encoder's delay and 529 of its own.
_MP3_DELAY_SAMPLES = 1105
_MP3_VERSION = f"1 {soundfile.__libsndfile_version__}"
_FIR_SAMPLES = 1023


@dataclass(frozen=True)
class Deformation:
    """One way to deform sound, at several levels.

    Attributes:
        name: key in results.
        title: name for people.
        unit: unit of a level, for people.
        clean: level at which nothing is done, for the axis of a curve.
        levels: levels from slight to strong.
        apply: (waveform (samples,), level, seed) → waveform of the same length.
        version: changes whenever the result does.
    """

    name: str
    title: str
    unit: str
    clean: float
    levels: tuple[float, ...]
    apply: Callable[[Waveform, float, int], Waveform]
    version: str = "1"

    def label(self, level: float) -> str:
        """Return a level with its unit, or ``clean``."""
        return "clean" if level == self.clean else f"{level:g} {self.unit}".replace("-", "−")


def white_noise(waveform: Waveform, snr_db: float, seed: int) -> Waveform:
    """Add white noise at exactly that ratio of the whole clip's power to the noise's; silence stays silent."""
    noise = np.random.default_rng(seed).standard_normal(len(waveform))
    power, noise_power = np.square(waveform, dtype=np.float64).mean(), np.square(noise).mean()
    return (waveform + noise * np.sqrt(power / noise_power / 10 ** (snr_db / 10))).astype(np.float32)


def gain(waveform: Waveform, gain_db: float, seed: int = 0) -> Waveform:
    """Scale by decibels."""
    return (waveform * 10 ** (gain_db / 20)).astype(np.float32)


def mp3(waveform: Waveform, kbits: float, seed: int = 0) -> Waveform:
    """Encode as MP3 with a constant bit rate (kbit/s) and decode, without delay; beyond full scale it clips.

    MPEG-2 Layer III at 24 kHz; libsndfile gives the rate as a level from 0 (160 kbit/s) to 1 (8).
    """
    stream = io.BytesIO()
    most, least = _MP3_KBITS
    with soundfile.SoundFile(
        stream,
        "w",
        samplerate=SAMPLE_RATE,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=(most - kbits) / (most - least),
    ) as sound:
        sound.write(waveform)
    stream.seek(0)
    decoded = soundfile.read(stream, dtype="float32")[0]
    if len(decoded) != len(waveform):
        decoded = decoded[_MP3_DELAY_SAMPLES : _MP3_DELAY_SAMPLES + len(waveform)]
    return np.pad(decoded, (0, len(waveform) - len(decoded)))


def low_pass(waveform: Waveform, hertz: float, seed: int = 0) -> Waveform:
    """Keep what lies below a frequency: a Kaiser-windowed sinc of 1,023 samples: no delay, 80 dB down 60 Hz above."""
    taps = np.arange(_FIR_SAMPLES) - _FIR_SAMPLES // 2
    kernel = 2 * hertz / SAMPLE_RATE * np.sinc(2 * hertz / SAMPLE_RATE * taps) * np.kaiser(_FIR_SAMPLES, 7.86)
    length = 1 << (len(waveform) + _FIR_SAMPLES - 1).bit_length()
    spectrum = np.fft.rfft(waveform, length) * np.fft.rfft(kernel / kernel.sum(), length)
    delay = _FIR_SAMPLES // 2
    return np.fft.irfft(spectrum, length)[delay : delay + len(waveform)].astype(np.float32)


DEFORMATIONS: dict[str, Deformation] = {
    deformation.name: deformation
    for deformation in (
        Deformation("noise", "White noise, signal to noise", "dB", 98.0, (30.0, 20.0, 10.0, 0.0), white_noise),
        Deformation("gain", "Gain", "dB", 0.0, (-12.0, -24.0, -36.0), gain),
        Deformation("mp3", "MP3 at a constant bit rate", "kbit/s", 384.0, (64.0, 32.0, 16.0), mp3, _MP3_VERSION),
        Deformation("pitch", "Pitch shift", "semitones", 0.0, (0.5, 1.0, 2.0, 4.0), pitch_shift),
        Deformation("lowpass", "Low-pass", "Hz", 12000.0, (4000.0, 2000.0, 1000.0), low_pass),
    )
}
"""By name. The clean levels are those of 16-bit samples at 24 kHz: 98 dB over their noise, 384 kbit/s, 12 kHz."""
