"""Features that labels are clustered from: fine chroma, cepstrum, and their slopes. In float64, on the frame grid.

A label is the nearest of many centroids. In float32 a frame's features depend in the last digits on what else is
computed with it, and about one frame in some tens of thousands lies so close to a border that this decides its label;
in float64 none in any corpus does.
"""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.features.mel import magnitudes

CHROMA_FFT_SAMPLES = 4096
CEPSTRUM_FFT_SAMPLES = 1024
_CEPSTRUM_WINDOW_SAMPLES = 600  # 25 ms
_CEPSTRUM_BANDS = 23
_CEPSTRUM_LOWEST_HERTZ = 20.0
_A0_HERTZ = 27.5
_CENTER_OCTAVE, _OCTAVE_WIDTH = 5.0, 2.0
# What counts as hardly any sound: the power of a sine at −80 dB of full scale.
_POWER_FLOOR = 1e-8
_SLOPE_FRAMES = 5
# Numbers below the normal range take a processor ten times as long.
_NO_SHARE = 1e-12


def pitch_class_bank(pitch_classes: int, fft_samples: int) -> Tensor:
    """Return how much each frequency of an STFT belongs to each pitch class (Ellis 2007, "Chroma feature analysis").

    A frequency's position on the circle of the octave is its distance in pitch classes from A0; it counts there as a
    Gaussian whose deviation is half the distance to the next frequency (at least half a pitch class). Each frequency
    counts as much as any other, but for a Gaussian over octaves, two wide around five octaves above A0. What
    ``librosa.filters.chroma`` computes with ``tuning=0``.

    Args:
        pitch_classes: classes of an octave, a multiple of 12; the first is C.
        fft_samples: length of the STFT's window in samples.

    Returns:
        float64 (fft_samples // 2 + 1, pitch_classes).
    """
    hertz = torch.arange(1, fft_samples, dtype=torch.float64) * (SAMPLE_RATE / fft_samples)
    octaves = torch.log2(hertz / _A0_HERTZ)
    octaves = torch.cat([octaves[:1] - 1.5, octaves])  # 0 Hz: anywhere below
    positions = octaves * pitch_classes
    widths = F.pad(positions.diff().clamp(min=1.0), (0, 1), value=1.0)
    classes = torch.arange(pitch_classes, dtype=torch.float64) + 3 * (pitch_classes // 12)  # from C; 3 semitones over A
    half = pitch_classes / 2
    apart = torch.remainder(positions[:, None] - classes + half, pitch_classes) - half
    bank = F.normalize(torch.exp(-2.0 * (apart / widths[:, None]).square()), dim=1)
    bank = torch.where(bank < _NO_SHARE, 0.0, bank)
    bank = bank * torch.exp(-0.5 * ((octaves - _CENTER_OCTAVE) / _OCTAVE_WIDTH).square())[:, None]
    return bank[: fft_samples // 2 + 1]


class FineChroma(nn.Module):
    """Chroma of a power spectrum, the greatest class of a frame at 1 (less where there is hardly any sound).

    The window of 4,096 samples (171 ms) tells semitones apart from 120 Hz on; below, a frequency spreads over its
    neighbours.

    Args:
        pitch_classes: number of pitch classes in an octave.
    """

    def __init__(self, pitch_classes: int) -> None:
        super().__init__()
        self.bank: Tensor
        self.window: Tensor
        self.register_buffer("bank", pitch_class_bank(pitch_classes, CHROMA_FFT_SAMPLES), persistent=False)
        window = torch.hann_window(CHROMA_FFT_SAMPLES, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) at 24 kHz to float64 (batch, samples // 320 + 1, pitch_classes)."""
        # to a share of what a full-scale sine would have
        power = (magnitudes(waveform, self.window, CHROMA_FFT_SAMPLES) * (2.0 / self.window.sum())).square()
        folded = power @ self.bank
        return folded / (folded.amax(dim=-1, keepdim=True) + _POWER_FLOOR)


class Cepstrum(nn.Module):
    """Mel cepstrum: the first cosine coefficients of 23 log mel energies, 25 ms windows.

    Kaldi's bands (from 20 Hz, O'Shaughnessy's mel scale), without its pre-emphasis and liftering: both only add to
    or scale a coefficient, and each is normalised before it is clustered.

    Args:
        coefficients: number of coefficients, the energy's included.
    """

    def __init__(self, coefficients: int) -> None:
        super().__init__()
        self.bank: Tensor
        self.window: Tensor
        self.cosines: Tensor
        bank = torchaudio.functional.melscale_fbanks(
            CEPSTRUM_FFT_SAMPLES // 2 + 1, _CEPSTRUM_LOWEST_HERTZ, SAMPLE_RATE / 2, _CEPSTRUM_BANDS, SAMPLE_RATE
        )
        self.register_buffer("bank", bank.double(), persistent=False)
        window = torch.hann_window(_CEPSTRUM_WINDOW_SAMPLES, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)
        angles = (torch.arange(_CEPSTRUM_BANDS, dtype=torch.float64) + 0.5) * (math.pi / _CEPSTRUM_BANDS)
        cosines = torch.cos(angles[:, None] * torch.arange(coefficients)) * math.sqrt(2.0 / _CEPSTRUM_BANDS)
        cosines[:, 0] /= math.sqrt(2.0)
        self.register_buffer("cosines", cosines, persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) at 24 kHz to float64 (batch, samples // 320 + 1, coefficients)."""
        power = (magnitudes(waveform, self.window, CEPSTRUM_FFT_SAMPLES) * (2.0 / self.window.sum())).square()
        return (power @ self.bank + _POWER_FLOOR).log() @ self.cosines


def slopes(features: Tensor) -> Tensor:
    """Return the slope over time of each feature, by linear regression over five frames ("delta").

    Args:
        features: (batch, frames, dimensions); the first and last frames count as going on beyond the ends.

    Returns:
        The same shape, per frame.
    """
    deltas = torchaudio.functional.compute_deltas(features.transpose(1, 2), win_length=_SLOPE_FRAMES)
    return deltas.transpose(1, 2)
