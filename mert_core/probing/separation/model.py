"""Open-Unmix's network on frozen features (Stöter et al. 2019, as MARBLE uses it): a mask for a mixture's spectrogram.

Features → linear, batch norm, tanh → bidirectional LSTM, beside a way around it → linear, batch norm, ReLU → linear,
batch norm, scale and shift, ReLU = mask. There is one network per stem. Layers, transforms and first weights are those
of the package `openunmix`; only the input differs: a learned weighted sum of an encoder's hidden states, where the
package reads the mixture's spectrogram.
"""

from __future__ import annotations

import torch
from openunmix.model import OpenUnmix
from openunmix.transforms import ComplexNorm, make_filterbanks
from torch import Tensor, nn
from torch.nn import functional

from mert_core.audio.grid import HOP_SAMPLES

FFT_SAMPLES = 2048
BINS = FFT_SAMPLES // 2 + 1


def frame_count(samples: int) -> int:
    """Return how many frames the spectrogram of a waveform has; frame i is centred at sample 320 · i."""
    return samples // HOP_SAMPLES + 1


def magnitude(waveforms: Tensor) -> Tensor:
    """Return the magnitudes (sounds, channels, bins, frames) of waveforms (sounds, channels, samples)."""
    transform, _ = make_filterbanks(n_fft=FFT_SAMPLES, n_hop=HOP_SAMPLES, center=True)
    return ComplexNorm()(transform.to(waveforms.device)(waveforms))


class SeparationHead(OpenUnmix):
    """Open-Unmix's network for one stem, which reads features.

    The LSTM's layers are modules of their own with the dropout between them given from outside: the dropout inside of
    `torch.nn.LSTM` draws from the process's one generator, which threads share, so that a network would depend on
    those that are trained beside it.

    Args:
        inputs: number of hidden states in the learned weighted sum; 1: that one alone.
        width: numbers per hidden state and frame.
        hidden: width of the layers; an even number, half for each direction of the LSTM.
        layers: number of LSTM layers.
        channels: number of channels of the mixture, each with a mask of its own.
    """

    def __init__(self, inputs: int, width: int, hidden: int, layers: int, channels: int) -> None:
        super().__init__(nb_bins=BINS, nb_channels=channels, hidden_size=hidden, nb_layers=1)
        self.state_weights = nn.Parameter(torch.zeros(inputs))
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.lstm = nn.ModuleList(nn.LSTM(hidden, hidden // 2, bidirectional=True) for _ in range(layers))
        del self.input_mean, self.input_scale  # features come standardized

    def forward(self, features: Tensor, dropout: Tensor | None = None, every_frames: int = 1) -> Tensor:
        """Return masks (excerpts, ⌈frames / every_frames⌉, channels, bins).

        Args:
            features: standardized (inputs, excerpts, frames, width).
            dropout: factors between LSTM layers (layers - 1, frames, excerpts, hidden); None: no dropout.
            every_frames: step between the frames that get a mask; the LSTM reads all of them.
        """
        mixed = torch.tensordot(torch.softmax(self.state_weights, dim=0), features, dims=1).transpose(0, 1)
        frames, excerpts, width = mixed.shape
        encoded = torch.tanh(self.bn1(self.fc1(mixed.reshape(-1, width)))).view(frames, excerpts, -1)
        inner = encoded
        for number, layer in enumerate(self.lstm):
            if dropout is not None and number:
                inner = inner * dropout[number - 1]
            inner, _ = layer(inner)
        both = torch.cat([encoded, inner], dim=-1).flatten(0, 1)
        decoded = functional.relu(self.bn2(self.fc2(both))).view(frames, excerpts, -1)[::every_frames]
        outputs = self.bn3(self.fc3(decoded.flatten(0, 1))).view(*decoded.shape[:2], -1, BINS)
        return functional.relu(outputs * self.output_scale + self.output_mean).transpose(0, 1)
