"""Reconstruction losses of the RVQ-VAE."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from mert_core.audio.frames import SAMPLE_RATE

# Window samples and mel bands of each scale; a hop is a quarter of the window.
SCALES = ((512, 40), (1024, 80), (2048, 80))
_FLOOR = 1e-5


class LogMelDistance(nn.Module):
    """Mean absolute difference of log-mel spectrograms at three time scales (EnCodec, eq. 2, L1 part), in nepers."""

    def __init__(self) -> None:
        super().__init__()
        for index, (window_samples, bands) in enumerate(SCALES):
            bank = torchaudio.functional.melscale_fbanks(
                window_samples // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
            )
            self.register_buffer(f"bank_{index}", bank, persistent=False)
            self.register_buffer(f"window_{index}", torch.hann_window(window_samples), persistent=False)

    def log_mels(self, waveform: Tensor) -> list[Tensor]:
        """Return one log-mel spectrogram (batch, frames, bands) per scale of audio (batch, samples)."""
        spectrograms = []
        for index, (window_samples, _) in enumerate(SCALES):
            window: Tensor = getattr(self, f"window_{index}")
            spectrum = torch.stft(
                waveform, window_samples, window_samples // 4, window=window, center=True, return_complex=True
            )
            # The root's slope is infinite at silence, hence the power's floor.
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
            bank: Tensor = getattr(self, f"bank_{index}")
            spectrograms.append((magnitude.transpose(1, 2) @ bank).clamp(min=_FLOOR).log())
        return spectrograms

    def forward(self, decoded: Tensor, waveform: Tensor) -> Tensor:
        """Return the distance of two equally long batches (batch, samples), averaged over the scales."""
        with torch.no_grad():
            truth = self.log_mels(waveform)
        distances = [(mine - true).abs().mean() for mine, true in zip(self.log_mels(decoded), truth, strict=True)]
        return torch.stack(distances).mean()
