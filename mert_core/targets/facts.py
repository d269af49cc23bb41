"""Facts about a track's sound, found while its samples are at hand; the gate judges them later."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.audio.pcm import to_float32
from mert_core.targets.landmarks import SKETCH_NUMBERS, sketch

SILENT_DECIBELS = -60.0
"""A frame whose level (RMS, relative to full scale) is below is silent."""

TRACK_FACTS = np.dtype(
    [
        ("offset_samples", "<i8"),  # of the track in its shard
        ("samples", "<i8"),
        ("sha256", "u1", (32,)),  # of its int16 bytes
        ("silent_frames", "<i8"),
        ("wall_hertz", "<f4"),  # where its spectrum ends in a wall; 0: it does not
        ("sketch", "<u4", (SKETCH_NUMBERS,)),  # of the recording, whatever its encoding: see `landmarks`
    ]
)

# Measured on the demo hour. Music resampled from 8 kHz falls by 46 to 77 dB at 3.9 kHz, from 11 kHz by 26 to 70 at
# 5.3 kHz, mp3 of 64 kbit/s by up to 51 at 11.3 kHz; as it is, no track falls by more than 7 dB. Twelfth-order
# low-pass filters reach 40 dB.
WALL_DECIBELS = 40.0
_WINDOW = 1024
_EVERY = 4  # of the windows one in four is looked at
# Rounding to 16 bits leaves -101 dB per bin.
_FLOOR_DECIBELS = -90.0
_LEAST_BIN = 40  # walls below 940 Hz are not looked for: too few bins to tell one from a tone
_BLOCK_SAMPLES = 60 * SAMPLE_RATE


def track_facts(offset_samples: int, pcm: NDArray[np.int16], known: NDArray[np.void] | None = None) -> NDArray[np.void]:
    """Return a track's facts, one row of `TRACK_FACTS`, from its int16 samples.

    Args:
        offset_samples: where it begins in its shard.
        pcm: its samples (samples,).
        known: the row that was found before, which holds if the samples are still the same.
    """
    row = np.zeros((), dtype=TRACK_FACTS)
    row["offset_samples"], row["samples"] = offset_samples, len(pcm)
    row["sha256"] = np.frombuffer(hashlib.sha256(np.ascontiguousarray(pcm).data).digest(), dtype=np.uint8)
    if known is not None and all(np.array_equal(known[name], row[name]) for name in ("offset_samples", "sha256")):
        return known
    row["silent_frames"] = silent_frames(pcm)
    row["wall_hertz"] = wall_hertz(spectrum_decibels(pcm))
    row["sketch"] = sketch(pcm)
    return row


def silent_frames(pcm: NDArray[np.int16]) -> int:
    """Return how many frames of a track (samples,) are silent."""
    least = HOP_SAMPLES * 10 ** (SILENT_DECIBELS / 10)
    found = 0
    for block in _blocks(pcm, HOP_SAMPLES):
        waveform = to_float32(block).reshape(-1, HOP_SAMPLES)
        found += int(np.count_nonzero(np.einsum("fs,fs->f", waveform, waveform) < least))
    return found


def spectrum_decibels(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return a track's mean power per bin, in dB relative to full scale, (513,) from 0 to 12 kHz."""
    window = torch.hann_window(_WINDOW)
    power, windows = torch.zeros(_WINDOW // 2 + 1, dtype=torch.float64), 0
    for block in _blocks(pcm, _WINDOW):
        waveform = torch.from_numpy(to_float32(block.reshape(-1, _WINDOW)[::_EVERY]))
        spectrum = torch.view_as_real(torch.fft.rfft(waveform * window))
        power += spectrum.square().sum(dim=(0, 2), dtype=torch.float64)
        windows += len(waveform)
    power /= max(windows, 1) * float(window.square().sum())
    return 10 * np.log10(power.numpy() + 1e-14)


def wall_hertz(decibels: NDArray[np.float64]) -> float:
    """Return where a spectrum (513,) ends in a wall, as resampling from a lower rate leaves it; 0 if it does not.

    The highest bin above the floor is its end. It is a wall if what lies a little below is filled, not only a
    harmonic here and there (its lower quartile), and higher by `WALL_DECIBELS` than what lies above.
    """
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(decibels, 2, mode="edge"), 5), axis=1)
    filled = np.flatnonzero(smooth > _FLOOR_DECIBELS)
    bins_per_hertz = _WINDOW / SAMPLE_RATE
    if not len(filled) or not _LEAST_BIN < (end := int(filled[-1])) < len(smooth) - round(500 * bins_per_hertz):
        return 0.0
    below = np.percentile(decibels[int(0.7 * end) : int(0.9 * end)], 25)
    above = np.median(decibels[end + round(100 * bins_per_hertz) :])
    return end / bins_per_hertz if below - above >= WALL_DECIBELS else 0.0


def _blocks(pcm: NDArray[np.int16], multiple: int) -> list[NDArray[np.int16]]:
    """Return a track in blocks of a minute, without what does not fill ``multiple`` samples at its end."""
    size = _BLOCK_SAMPLES // multiple * multiple
    whole = pcm[: len(pcm) // multiple * multiple]
    return [whole[first : first + size] for first in range(0, len(whole), size)]
