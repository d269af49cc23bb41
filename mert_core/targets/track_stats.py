"""Statistics of a track's sound, measured while its samples are in memory; the quality checks judge them later.

They are silence, bandwidth (music that was resampled from a lower rate ends in a wall), the SHA-256 of the samples, and
a fingerprint: hashes of constellations of spectral peaks, which survive encoding and shifts, so that two tracks of the
same recording share many of them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.shards import to_float32

FINGERPRINT_NUMBERS = 32
# Measured on the demo hour: of 16,110 pairs of its tracks none shares more than 4 numbers. Of 60 tracks and their like,
# 7 or more are shared by 83 % if shifted by 512 samples, half a hop, and by 97 % through mp3 of 64 kbit/s, shifted by
# 5,003.
ALIKE_NUMBERS = 7
EMPTY = np.uint32(0xFFFFFFFF)
_WINDOW, _HOP = 4096, 1024
_BINS = slice(32, 800)  # 190 Hz to 4.7 kHz
_TOGETHER = 4  # bins that count as one
_NEAR_FRAMES, _NEAR_BINS = 12, 9  # a peak is the highest within 0.5 s and 210 Hz
_FAN = 4  # peaks that follow, of which each two make a constellation with the first
_LEAST_POWER = 2e-2
_BLOCK_SAMPLES = 60 * SAMPLE_RATE


def fingerprint(pcm: NDArray[np.int16]) -> NDArray[np.uint32]:
    """Return a track's fingerprint (32,), ascending; filled up with the largest number if it has few peaks.

    These are the smallest of all the track's hashes, so two tracks that share most hashes share most of these.
    """
    hashes = [np.zeros(0, dtype=np.uint32)]
    for first in range(0, len(pcm), _BLOCK_SAMPLES):
        block = pcm[first : first + _BLOCK_SAMPLES]
        if len(block) >= _WINDOW:
            hashes.append(_constellations(*_peaks(torch.from_numpy(to_float32(block)))))
    smallest = np.unique(np.concatenate(hashes))[:FINGERPRINT_NUMBERS]
    return np.concatenate([smallest, np.full(FINGERPRINT_NUMBERS - len(smallest), EMPTY)])


def _peaks(waveform: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return frame and bin of every peak, in order of time."""
    spectrum = torch.stft(waveform, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), return_complex=True)
    power = torch.view_as_real(spectrum[_BINS]).square().sum(-1).unflatten(0, (-1, _TOGETHER)).amax(1)
    near = torch.nn.functional.max_pool1d(power, 2 * _NEAR_FRAMES + 1, 1, _NEAR_FRAMES)
    near = torch.nn.functional.max_pool1d(near.T.contiguous(), 2 * _NEAR_BINS + 1, 1, _NEAR_BINS).T
    frames, bins = torch.nonzero(((power == near) & (power > _LEAST_POWER)).T, as_tuple=True)
    return frames.numpy(), bins.numpy()


def _constellations(frames: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return one hash for each peak and each two of those that follow it."""
    hashes = [np.zeros(0, dtype=np.uint32)]
    for second in range(1, _FAN):
        for third in range(second + 1, _FAN + 1):
            count = max(len(frames) - third, 0)
            peaks = [slice(start, start + count) for start in (0, second, third)]
            # coarse, so that a peak may move a little: pitches, and distances in time from the first
            numbers = [bins[peak] // 2 for peak in peaks]
            numbers += [(frames[peak] - frames[peaks[0]] + 2) // 4 for peak in peaks[1:]]
            # 32 well mixed bits of all five (MurmurHash3's finalizer over a polynomial)
            mixed = np.zeros(count, dtype=np.uint64)
            for number in numbers:
                mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + number.astype(np.uint64)
                mixed ^= mixed >> np.uint64(33)
                mixed *= np.uint64(0xFF51AFD7ED558CCD)
                mixed ^= mixed >> np.uint64(33)
            hashes.append((mixed & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    return np.concatenate(hashes)


SILENT_DECIBELS = -60.0
"""A frame whose level (RMS, relative to full scale) is below is silent."""

# Stored in every target store, so the names stay.
TRACK_STATS = np.dtype(
    [
        ("offset_samples", "<i8"),  # of the track in its shard
        ("samples", "<i8"),
        ("sha256", "u1", (32,)),  # of its int16 bytes
        ("silent_frames", "<i8"),
        ("wall_hertz", "<f4"),  # where its spectrum ends in a wall; 0: nowhere
        ("sketch", "<u4", (FINGERPRINT_NUMBERS,)),  # of the recording, whatever its encoding: the fingerprint
    ]
)

# Measured on the demo hour. Music resampled from 8 kHz falls by 46 to 77 dB at 3.9 kHz, from 11 kHz by 26 to 70 at
# 5.3 kHz, mp3 of 64 kbit/s by up to 51 at 11.3 kHz; as it is, no track falls by more than 7 dB. Twelfth-order
# low-pass filters reach 40 dB.
WALL_DECIBELS = 40.0
_SILENCE_WINDOW = 1024
_EVERY = 4  # of the windows one in four is looked at
# Rounding to 16 bits leaves -101 dB per bin.
_FLOOR_DECIBELS = -90.0
_LEAST_BIN = 40  # walls below 940 Hz are not looked for: too few bins to tell one from a tone


def measure_track(
    offset_samples: int, pcm: NDArray[np.int16], cached: NDArray[np.void] | None = None
) -> NDArray[np.void]:
    """Return a track's statistics, one row of `TRACK_STATS`, from its int16 samples.

    Args:
        offset_samples: first sample of the track in its shard.
        pcm: its samples (samples,).
        cached: the row of an earlier run, which holds if the samples are still the same.
    """
    row = np.zeros((), dtype=TRACK_STATS)
    row["offset_samples"], row["samples"] = offset_samples, len(pcm)
    row["sha256"] = np.frombuffer(hashlib.sha256(np.ascontiguousarray(pcm).data).digest(), dtype=np.uint8)
    if cached is not None and all(np.array_equal(cached[name], row[name]) for name in ("offset_samples", "sha256")):
        return cached
    row["silent_frames"] = silent_frames(pcm)
    row["wall_hertz"] = wall_hertz(spectrum_decibels(pcm))
    row["sketch"] = fingerprint(pcm)
    return row


def silent_frames(pcm: NDArray[np.int16]) -> int:
    """Return how many frames of a track (samples,) are silent."""
    least = HOP_SAMPLES * 10 ** (SILENT_DECIBELS / 10)
    count = 0
    for block in _blocks(pcm, HOP_SAMPLES):
        waveform = to_float32(block).reshape(-1, HOP_SAMPLES)
        count += int(np.count_nonzero(np.einsum("fs,fs->f", waveform, waveform) < least))
    return count


def spectrum_decibels(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return a track's mean power per bin, in dB relative to full scale, (513,) from 0 to 12 kHz."""
    window = torch.hann_window(_SILENCE_WINDOW)
    power, windows = torch.zeros(_SILENCE_WINDOW // 2 + 1, dtype=torch.float64), 0
    for block in _blocks(pcm, _SILENCE_WINDOW):
        waveform = torch.from_numpy(to_float32(block.reshape(-1, _SILENCE_WINDOW)[::_EVERY]))
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
    bins_per_hertz = _SILENCE_WINDOW / SAMPLE_RATE
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
