"""Constant-Q transform on nnAudio's scale, octave by octave.

MERT's musical teacher is nnAudio's ``CQT1992v2``, a bank of 336 filters of up to 50,460 taps. Each octave of it
looks at a narrow band only, so the signal is band-limited and resampled exactly in the frequency domain to twice
the octave's top frequency (and a guard), where the octave's 48 filters have some 330 taps and one small matrix
product per octave computes all frames.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE

CQT_BINS = 336
BINS_PER_OCTAVE = 48
MIN_HERTZ = 32.7
_OCTAVES = CQT_BINS // BINS_PER_OCTAVE
_QUALITY = 1.0 / (2.0 ** (1.0 / BINS_PER_OCTAVE) - 1.0)
# Samples per hop in the lowest octave: 150 Hz for 32.7-64.5 Hz, which leaves 11 side lobes of a Hann window below
# the Nyquist frequency. Each further octave doubles it.
_LOWEST_HOP = 2
# Band-limiting makes the filters ring past their ends.
_RINGING_TAPS = 6
# Longer music is transformed in overlapping pieces of at most so many hops (8.5 s): shorter Fourier transforms stay in
# the processor's cache, which for a song of 30 s more than makes up for the overlap.
_PIECE_HOPS = 640


def _fast_length(least: int) -> int:
    """Return the smallest number from ``least`` on without a prime factor above 5: FFTs like those."""
    while pow(30, least.bit_length(), least):  # 0 where it divides a power of 30
        least += 1
    return least


@functools.cache  # half a second for all octaves
def _octave_filters(octave: int) -> tuple[np.ndarray, int]:
    """Return one octave's filters at its own rate, float32 (taps, 2 × 48), and the taps left of the centre."""
    hop = _LOWEST_HOP << octave
    centers = MIN_HERTZ * 2.0 ** (octave + np.arange(BINS_PER_OCTAVE) / BINS_PER_OCTAVE)
    longest = math.ceil(_QUALITY * SAMPLE_RATE / float(centers[0]))
    half = math.ceil(longest / 2 * hop / HOP_SAMPLES) + _RINGING_TAPS
    hops = _fast_length(math.ceil(1.3 * 2 * half / hop))
    # nnAudio's filters around sample 0, at the full rate.
    bank = np.zeros((BINS_PER_OCTAVE, hops * HOP_SAMPLES), dtype=np.complex128)
    for row, hertz in zip(bank, map(float, centers), strict=True):
        length = math.ceil(_QUALITY * SAMPLE_RATE / hertz)
        times = np.arange(-((length + 1) // 2), length - (length + 1) // 2)
        window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(length) / length)
        taps = window * np.exp(times * (2j * math.pi * hertz / SAMPLE_RATE))
        row[times % row.size] = taps * (math.sqrt(length) / np.abs(taps).sum())
    # Each octave's own band of their spectra, at the octave's rate.
    spectrum = np.fft.fft(bank, axis=1)
    samples, half_spectrum = hops * hop, hops * hop // 2
    narrow = np.zeros((BINS_PER_OCTAVE, samples), dtype=np.complex128)
    narrow[:, :half_spectrum] = spectrum[:, :half_spectrum]
    narrow[:, samples - half_spectrum + 1 :] = spectrum[:, bank.shape[1] - half_spectrum + 1 :]
    # A shorter inverse DFT scales up by the ratio of the rates, here and for the signal; the inner product of the
    # two, a sum over fewer samples, needs that ratio once.
    slow = np.fft.ifft(narrow, axis=1) * (hop / HOP_SAMPLES)
    slow = slow[:, np.arange(-half, half) % samples].T
    return np.concatenate([slow.real, slow.imag], axis=1).astype(np.float32), half


class ConstantQ(nn.Module):
    """Constant-Q magnitudes: 336 bins, 48 per octave from 32.7 Hz, at 75 frames per second.

    Defined as nnAudio's ``CQT1992v2(sr=24000, hop_length=320, fmin=32.7, n_bins=336, bins_per_octave=48, norm=1,
    window="hann", center=True, pad_mode="constant")``: linear magnitudes times √(filter length). The relative
    error (L2) stays below 2e-3. It has no parameters, no gradient and nothing in the state dict.
    """

    def __init__(self) -> None:
        super().__init__()
        self._halves: list[int] = []
        for octave in range(_OCTAVES):
            filters, half = _octave_filters(octave)
            self._halves.append(half)
            self.register_buffer(f"filters_{octave}", torch.tensor(filters), persistent=False)
        longest = math.ceil(_QUALITY * SAMPLE_RATE / MIN_HERTZ)
        self._margin_hops = math.ceil((longest / 2) / HOP_SAMPLES) + 2

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Transform mono audio at 24 kHz.

        Args:
            waveform: (batch, samples) or (samples,), any floating type; computed in float32 also under autocast.

        Returns:
            Magnitudes (batch, frames, 336) float32 with ``frames = samples // 320 + 1``; frame t is centred on
            sample 320·t, with silence beyond both ends.
        """
        waveform = torch.atleast_2d(waveform).float()
        batch, samples = waveform.shape
        frames = samples // HOP_SAMPLES + 1
        # A transform is circular: one margin of silence serves both ends.
        hops = _fast_length(math.ceil(samples / HOP_SAMPLES) + self._margin_hops)
        if hops <= _PIECE_HOPS:
            return self._piece(waveform, hops, 0, frames)
        margin = self._margin_hops
        pieces = math.ceil(frames / (_PIECE_HOPS - 2 * margin))
        hops = _fast_length(math.ceil(frames / pieces) + 2 * margin)
        own = hops - 2 * margin  # frames whose filters lie within the piece
        after = (pieces * own + margin) * HOP_SAMPLES - samples
        padded = nn.functional.pad(waveform, (margin * HOP_SAMPLES, after))
        cut = padded.unfold(1, hops * HOP_SAMPLES, own * HOP_SAMPLES)
        magnitudes = self._piece(cut.reshape(batch * pieces, -1), hops, margin, own)
        return magnitudes.view(batch, pieces * own, CQT_BINS)[:, :frames]

    def _piece(self, waveform: Tensor, hops: int, first: int, frames: int) -> Tensor:
        """Transform (batch, up to 320 · hops samples), as if it were repeated without end, from frame ``first`` on."""
        batch, octaves = len(waveform), []
        spectrum = torch.fft.rfft(waveform, n=hops * HOP_SAMPLES)
        for octave, half in enumerate(self._halves):
            hop = _LOWEST_HOP << octave
            filters: Tensor = getattr(self, f"filters_{octave}")
            band = torch.fft.irfft(spectrum[:, : hops * hop // 2], n=hops * hop)
            signal = torch.cat([band[:, -half:], band, band[:, :half]], dim=1)
            windows = signal.unfold(1, 2 * half, hop)[:, first : first + frames].reshape(batch * frames, 2 * half)
            with torch.autocast(waveform.device.type, enabled=False):
                real, imaginary = (windows @ filters).split(BINS_PER_OCTAVE, dim=1)
            octaves.append(torch.hypot(real, imaginary))
        return torch.cat(octaves, dim=1).view(batch, frames, CQT_BINS)
