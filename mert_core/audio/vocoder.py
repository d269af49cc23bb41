"""Pitch shift without change of tempo: a phase-locked vocoder stretches, resampling makes the pitch of it."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

FFT_SAMPLES = 2048
HOP_SAMPLES = 512


def pitch_shift(waveform: NDArray[np.float32], semitones: float) -> NDArray[np.float32]:
    """Return a waveform of the same length whose pitches are that much higher (or lower, below 0).

    Timbre moves with the pitch: formants are not kept.

    Args:
        waveform: (samples,).
        semitones: of equal temperament.
    """
    if semitones == 0 or not len(waveform):
        return waveform.astype(np.float32)
    ratio = 2.0 ** (semitones / 12)
    shifted = soxr.resample(stretch(waveform, ratio), ratio, 1.0, quality="HQ")[: len(waveform)]
    return np.pad(shifted, (0, len(waveform) - len(shifted))).astype(np.float32)


def stretch(waveform: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
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
            now = now * _turns(written, earlier)[_nearest_peak(np.abs(now))]
        written = now
        place = slice(number * HOP_SAMPLES, number * HOP_SAMPLES + FFT_SAMPLES)
        out[place] += np.fft.irfft(now) * window
        weight[place] += window**2
    return (out / np.maximum(weight, 1e-3))[half : half + samples].astype(np.float32)


def _turns(to: NDArray[np.complex128], origin: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the rotation by which each phase of one spectrum becomes that of another."""
    turns = to * origin.conj()
    size = np.abs(turns)
    return np.where(size > 0, turns / np.where(size > 0, size, 1.0), 1.0)


def _nearest_peak(magnitudes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each bin the nearest that is greater than two to its either side; itself, if there is none."""
    wide = np.pad(magnitudes, 2, constant_values=-1.0)
    around = np.lib.stride_tricks.sliding_window_view(wide, 5)[:, [0, 1, 3, 4]].max(axis=1)
    peaks, bins = np.flatnonzero(magnitudes > around), np.arange(len(magnitudes))
    if not len(peaks):
        return bins
    return peaks[np.searchsorted((peaks[1:] + peaks[:-1]) / 2, bins)]
