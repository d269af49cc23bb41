"""Log-mel spectrum and chroma, spectra to regress beside the constant-Q one, on the student's frame grid."""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.features.cqt import BINS_PER_OCTAVE, CQT_BINS

MEL_BINS = 128
CHROMA_BINS = BINS_PER_OCTAVE
MEL_FFT_SAMPLES = 2048
_MEL_GAIN = 100.0
_CHROMA_GAIN = 10.0
_CHROMA_FLOOR = 0.1


def mel_bank(fft_samples: int, bands: int) -> Tensor:
    """Return Slaney's mel filters up to 12 kHz, (fft_samples // 2 + 1, bands)."""
    return torchaudio.functional.melscale_fbanks(
        fft_samples // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )


def magnitudes(waveform: Tensor, window: Tensor, fft_samples: int) -> Tensor:
    """Return magnitudes of a centred STFT on the frame grid, with silence beyond both ends.

    Args:
        waveform: (batch, samples) at 24 kHz; computed in the window's precision, also under autocast.
        window: (window_samples,), at most ``fft_samples``.
        fft_samples: length of the transform.

    Returns:
        (batch, samples // 320 + 1, fft_samples // 2 + 1).
    """
    with torch.autocast(waveform.device.type, enabled=False):
        spectrum = torch.stft(
            waveform.to(window.dtype),
            fft_samples,
            HOP_SAMPLES,
            win_length=len(window),
            window=window,
            pad_mode="constant",
            return_complex=True,
        )
        # a complex number's abs guards against overflow, and a sum over an axis of two is slow: several times the
        # price of either
        parts = torch.view_as_real(spectrum)
        return (parts[..., 0].square() + parts[..., 1].square()).sqrt().transpose(1, 2)


class LogMel(nn.Module):
    """Log-mel spectrum: bands to 12 kHz, 75 frames per second.

    Slaney's mel scale and normalisation on magnitudes of a centred Hann window of 2,048 samples, as log(1 + 100 m): 0
    at silence, about 1.7 ± 1.5 in the demo's music, so that a regression needs no fitted mean or deviation.

    Args:
        bands: number of mel bands.
        precision: floating type of the arithmetic.
    """

    def __init__(self, bands: int = MEL_BINS, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.bank: Tensor
        self.window: Tensor
        self.register_buffer("bank", mel_bank(MEL_FFT_SAMPLES, bands).to(precision), persistent=False)
        self.register_buffer("window", torch.hann_window(MEL_FFT_SAMPLES, dtype=precision), persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) at 24 kHz to (batch, samples // 320 + 1, bands), also under autocast."""
        with torch.autocast(waveform.device.type, enabled=False):
            return torch.log1p(_MEL_GAIN * (magnitudes(waveform, self.window, MEL_FFT_SAMPLES) @ self.bank))


def chroma(cqt: Tensor) -> Tensor:
    """Fold constant-Q magnitudes (…, 336) into 48 pitch classes, four per semitone.

    log(1 + 10 q) summed over the seven octaves, then scaled to a mean square of 1 (less where there is hardly any
    sound): what sounds, whatever its octave and level.
    """
    folded = torch.log1p(_CHROMA_GAIN * cqt).unflatten(-1, (CQT_BINS // CHROMA_BINS, CHROMA_BINS)).sum(-2)
    return math.sqrt(CHROMA_BINS) * folded / (folded.norm(dim=-1, keepdim=True) + _CHROMA_FLOOR)
