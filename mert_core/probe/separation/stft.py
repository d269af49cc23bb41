"""The spectrogram that masks are laid on: 2,048 samples, one frame per 320, as MARBLE has it; and its exact inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from mert_core.audio.frames import HOP_SAMPLES

FFT_SAMPLES = 2048
BINS = FFT_SAMPLES // 2 + 1


def frames_of(samples: int) -> int:
    """Return how many frames a waveform has; frame i is centred at sample 320 · i."""
    return samples // HOP_SAMPLES + 1


def spectrum(waveform: Tensor) -> Tensor:
    """Return the complex spectrum (…, frames, bins) of a waveform (…, samples), with silence beyond both ends."""
    flat = waveform.reshape(-1, waveform.shape[-1])
    window = torch.hann_window(FFT_SAMPLES, dtype=flat.dtype, device=flat.device)
    found = torch.stft(flat, FFT_SAMPLES, HOP_SAMPLES, window=window, pad_mode="constant", return_complex=True)
    return found.transpose(1, 2).reshape(*waveform.shape[:-1], -1, BINS)


def magnitude(complex_spectrum: Tensor) -> Tensor:
    """Return absolute values; several times faster than `abs`, which guards against overflow."""
    parts = torch.view_as_real(complex_spectrum)
    return (parts[..., 0].square() + parts[..., 1].square()).sqrt()


def waveform_of(complex_spectrum: Tensor, samples: int) -> Tensor:
    """Return the waveform (…, samples) of a spectrum (…, frames, bins): the inverse of `spectrum`."""
    flat = complex_spectrum.reshape(-1, *complex_spectrum.shape[-2:]).transpose(1, 2)
    window = torch.hann_window(FFT_SAMPLES, dtype=flat.real.dtype, device=flat.device)
    found = torch.istft(flat, FFT_SAMPLES, HOP_SAMPLES, window=window, length=samples)
    return found.reshape(*complex_spectrum.shape[:-2], samples)
