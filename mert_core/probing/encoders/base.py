"""Encoders, which turn music into hidden states to probe: the interface, MERT's own, and mel statistics."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, SAMPLE_RATE, student_frames
from mert_core.config import MEL_STATISTICS
from mert_core.files import canonical_json, sha256_json
from mert_core.model.long_audio import song_states
from mert_core.model.mert import MertModel
from mert_core.parallel import single_threads

WHOLE_SECONDS = 60.0
"""What MERT is given at once; attention over a longer window is computed as `song_states` does."""


class Encoder(Protocol):
    """Turns music into vectors, for each of its hidden states; frozen. Several threads may ask at once.

    Attributes:
        device: where it computes.
        states: how many hidden states, input of the first layer included: 0 to L.
        width: of a pooled vector (a frame's is narrower with mel statistics).
    """

    device: str
    states: int
    width: int

    @property
    def frame_rate(self) -> float:
        """Frames per second of `frames`."""

    def pooled(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, width) from (batch, samples) at 24 kHz on `device`: the mean over time."""

    def frames(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, frames, width) from (batch, samples) at 24 kHz on `device`."""

    def describe(self) -> dict[str, Any]:
        """Return what it is, weights' hash included; equal descriptions embed alike, under the same code."""


class HiddenStates(ABC):
    """An encoder that has all its hidden states at once, each (batch, frames, width).

    Attributes:
        description: what it is, see `Encoder.describe`.
    """

    description: dict[str, Any]

    @torch.no_grad()
    def pooled(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, width)."""
        return torch.stack([state.float().mean(dim=1) for state in self.hidden(waveform)])

    @torch.no_grad()
    def frames(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, frames, width)."""
        return torch.stack([state.float() for state in self.hidden(waveform)])

    @abstractmethod
    def hidden(self, waveform: Tensor) -> Sequence[Tensor]:
        """Return the hidden states of (batch, samples) at 24 kHz."""

    def describe(self) -> dict[str, Any]:
        """Return what it is, weights' hash included."""
        return self.description


class ModelEncoder(HiddenStates):
    """A MERT encoder, hidden states 0 to L, of waveforms as they are.

    The model is used on the device it is on, and put into evaluation mode: no dropout, and nothing is masked.
    """

    def __init__(self, model: MertModel) -> None:
        self.model = model.eval()
        self.device = str(next(model.parameters()).device)
        self.states = model.config.num_hidden_layers + 1
        self.width = model.config.hidden_size
        self.frame_rate = float(FRAME_RATE)
        # Waveforms are never normalized; the key, in its first spelling, stays since the hash stands in the scores.
        self.description = {"encoder": "mert", "weights": weights_hash(model), "normalise": False}

    def hidden(self, waveform: Tensor) -> Sequence[Tensor]:
        """Return layers + 1 states."""
        if waveform.shape[-1] <= WHOLE_SECONDS * SAMPLE_RATE:
            return self.model(waveform).hidden_states
        rows = []
        for row in waveform:
            pieces = [states for _, states in song_states(self.model, row[None])]
            rows.append([torch.cat(state) for state in zip(*pieces, strict=True)])
        return [torch.stack(state) for state in zip(*rows, strict=True)]


class MelStatistics:
    """A log-mel spectrogram, and mean and standard deviation over time of each band: what needs no learning.

    A window of 2,048 samples, longer than the student's receptive field, because pitch and key need the resolution.
    """

    fft_samples = 2048
    floor_power = 1e-5
    states = 1
    frame_rate = float(FRAME_RATE)

    def __init__(self, bins: int, device: str = "cpu") -> None:
        from torchaudio.transforms import MelSpectrogram

        self.bins, self.width, self.device = bins, 2 * bins, device
        self._mel = MelSpectrogram(SAMPLE_RATE, n_fft=self.fft_samples, hop_length=HOP_SAMPLES, n_mels=bins).to(device)

    @torch.no_grad()
    def pooled(self, waveform: Tensor) -> Tensor:
        """Return (1, batch, 2 · bins)."""
        deviation, mean = torch.std_mean(self._levels(waveform), dim=-1, correction=0)
        return torch.cat([mean, deviation], dim=-1)[None]

    @torch.no_grad()
    def frames(self, waveform: Tensor) -> Tensor:
        """Return the bands themselves, (1, batch, frames, bins), as many frames as the student makes."""
        return self._levels(waveform)[..., : student_frames(waveform.shape[-1])].transpose(1, 2)[None]

    def _levels(self, waveform: Tensor) -> Tensor:
        return torch.log(self._mel(waveform) + self.floor_power)

    def describe(self) -> dict[str, Any]:
        """Return the transform's parameters."""
        sizes = {"bins": self.bins, "fft_samples": self.fft_samples, "hop_samples": HOP_SAMPLES}
        return {"encoder": MEL_STATISTICS, **sizes}


def weights_hash(module: nn.Module) -> str:
    """Return the hash of names, types, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identity(encoder: Encoder) -> str:
    """Return a hash of what an encoder is, on every machine the same: weights, kind, how it hears."""
    return sha256_json(encoder.describe())


def fingerprint(encoder: Encoder) -> str:
    """Return a hash of what an encoder is and of what it answers to one second of noise.

    The answer stands for the code: after a change that alters embeddings, the same weights get another fingerprint. It
    depends on the machine, so it keys caches and enters no output; it does not depend on the number of threads.
    """
    noise = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    with single_threads(encoder.device, workers=1) as pool:
        answers = list(pool.map(lambda method: method(noise.to(encoder.device)), (encoder.pooled, encoder.frames)))
    digest = hashlib.sha256(canonical_json(encoder.describe()).encode())
    for answer in answers:
        digest.update(answer.cpu().contiguous().numpy().data)
    return digest.hexdigest()
