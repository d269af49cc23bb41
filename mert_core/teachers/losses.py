"""Reconstruction losses of the RVQ-VAE."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE

# Window samples and mel bands of each scale; a hop is a quarter of the window.
SCALES = ((512, 40), (1024, 80), (2048, 80))
_FLOOR = 1e-5
_READOUT_WINDOW = 2048
_READOUT_BANDS = 128


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


class MelReadout(nn.Module):
    """Distance of a linear map of the quantised latents from the log-mel spectrum that a frame has just heard.

    Only for training; neither codes nor decoder depend on it afterwards. The decoder needs thousands of steps before
    it can play what the latents hold, and until then hardly tells the encoder what to put there; this tells it from
    the first step (compare the direct targets of SpeechTokenizer, arXiv 2308.16692, and Mel-RVQ, arXiv 2501.01108).
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.window: Tensor
        self.bank: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.linear = nn.Linear(dimension, _READOUT_BANDS)
        bank = torchaudio.functional.melscale_fbanks(
            _READOUT_WINDOW // 2 + 1,
            0.0,
            SAMPLE_RATE / 2,
            _READOUT_BANDS,
            SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(_READOUT_WINDOW), persistent=False)
        self.register_buffer("mean", torch.zeros(_READOUT_BANDS))
        self.register_buffer("deviation", torch.ones(_READOUT_BANDS))

    @torch.no_grad()
    def calibrate(self, waveform: Tensor) -> None:
        """Take each band's mean and deviation from a batch (batch, samples), so that no step is spent on them."""
        bands = self._heard(waveform).flatten(0, 1)
        self.mean.copy_(bands.mean(0))
        self.deviation.copy_(bands.std(0).clamp(min=0.1))

    def forward(self, latent: Tensor, waveform: Tensor) -> Tensor:
        """Return the mean absolute difference, in deviations, of (batch, dimension, frames) and (batch, samples)."""
        with torch.no_grad():
            truth = (self._heard(waveform) - self.mean) / self.deviation
        return (self.linear(latent.transpose(1, 2)) - truth).abs().mean()

    def _heard(self, waveform: Tensor) -> Tensor:
        # A window ends where its frame does: the encoder is causal.
        padded = nn.functional.pad(waveform, (_READOUT_WINDOW - HOP_SAMPLES, 0))
        spectrum = torch.stft(
            padded, _READOUT_WINDOW, HOP_SAMPLES, window=self.window, center=False, return_complex=True
        )
        return (spectrum.abs().transpose(1, 2) @ self.bank).clamp(min=_FLOOR).log()
