"""What can be probed: a pre-trained encoder and the two floors."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import torch
from torch import Tensor

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.files import canonical_json
from mert_core.model import MertModel
from mert_core.model.config import preset
from mert_core.paths import Layout
from mert_core.probe.tasks import MEL_STATISTICS, RANDOM_WEIGHTS


class Encoder(Protocol):
    """Turns music into one vector per layer and item; frozen. Several threads may ask at once."""

    device: str
    """Where it computes."""

    def embed(self, waveform: Tensor) -> Tensor:
        """Return (layers, batch, width) from a waveform (batch, samples) on `device`; no gradient, evaluation mode."""

    def describe(self) -> dict[str, Any]:
        """Return what it is, weights' hash included; equal descriptions embed alike, under the same code."""


class ModelEncoder:
    """A MERT encoder: the mean over time of each hidden state, 0 to L.

    The model is used on the device it is on, and put into evaluation mode.
    """

    def __init__(self, model: MertModel) -> None:
        self.model = model.eval()
        self.device = str(next(model.parameters()).device)

    @torch.no_grad()
    def embed(self, waveform: Tensor) -> Tensor:
        """Return (layers + 1, batch, width)."""
        return torch.stack([state.float().mean(dim=1) for state in self.model(waveform).hidden_states])

    def describe(self) -> dict[str, Any]:
        """Return the hash of names, shapes and bytes of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return {"encoder": "mert", "weights": digest.hexdigest()}


class MelStatistics:
    """Mean and standard deviation over time of each band of a log-mel spectrogram: what needs no learning.

    A window of 2,048 samples, longer than the student's receptive field, because pitch and key need the resolution.
    """

    fft_samples = 2048
    floor_power = 1e-5

    def __init__(self, bins: int, device: str = "cpu") -> None:
        from torchaudio.transforms import MelSpectrogram

        self.bins = bins
        self.device = device
        self._mel = MelSpectrogram(SAMPLE_RATE, n_fft=self.fft_samples, hop_length=HOP_SAMPLES, n_mels=bins).to(device)

    @torch.no_grad()
    def embed(self, waveform: Tensor) -> Tensor:
        """Return (1, batch, 2 · bins)."""
        levels = torch.log(self._mel(waveform) + self.floor_power)
        deviation, mean = torch.std_mean(levels, dim=-1, correction=0)
        return torch.cat([mean, deviation], dim=-1)[None]

    def describe(self) -> dict[str, Any]:
        """Return the transform's parameters."""
        return {
            "encoder": MEL_STATISTICS,
            "bins": self.bins,
            "fft_samples": self.fft_samples,
            "hop_samples": HOP_SAMPLES,
        }


def fingerprint(encoder: Encoder) -> str:
    """Return a hash of what an encoder is and of what it answers to one second of noise.

    The answer stands for the code: after a change that alters embeddings, the same weights get another fingerprint. It
    depends on the machine, so it keys caches and enters no output.
    """
    noise = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    answer = encoder.embed(noise.to(encoder.device)).cpu().contiguous()
    digest = hashlib.sha256(canonical_json(encoder.describe()).encode())
    digest.update(answer.numpy().data)
    return digest.hexdigest()


def device_of(choice: str) -> str:
    """Return ``cuda`` or ``cpu`` for a device parameter (auto, cpu, cuda).

    Raises:
        MertError: cuda is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise MertError("the device is cuda, but torch finds no GPU; set pretrain.device (or the run's) to auto")
    return "cuda" if choice in {"auto", "cuda"} and available else "cpu"


def load_encoder(config: Config, layout: Layout, run: str) -> Encoder:
    """Return the encoder of a named run, or a floor: ``random-weights`` is the network of `probe.floor_run`, untrained.

    Raises:
        MertError: no such run, or its checkpoint is missing.
    """
    if run == MEL_STATISTICS:
        return MelStatistics(config.probe.mel_bins, device_of(config.pretrain.device))
    settings = config.run(config.probe.floor_run if run == RANDOM_WEIGHTS else run)
    if run == RANDOM_WEIGHTS:
        shape = preset(settings.preset, settings.layer_norm, settings.deepnorm, settings.attention_relax)
        model = MertModel(shape, seed=config.seed)
    else:
        model = MertModel.from_pretrained(layout.model(run))
    return ModelEncoder(model.to(device_of(settings.device)))
