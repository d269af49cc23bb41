"""From samples to frames: seven strided convolutions, and the projection to the encoder's width."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mert_core.model.config import MertConfig


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


Moments = tuple[Tensor, Tensor]
"""Mean (batch, kernel) and covariance (batch, kernel, kernel), float64, of the samples under the first kernel."""


class FirstConv(nn.Module):
    """The first convolution and the norm of each of its channels over time, as one product; then exact GELU.

    Mean and variance of a channel follow from those of the samples under its kernel: for taps w they are w·μ and w·Σw.
    So padding and the pieces of a long song are no special cases: the statistics are those of a row's own samples,
    and the norm becomes part of the taps. Statistics are in float64.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, channels, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(channels, channels)
        self.kernel, self.stride = kernel, stride

    def outputs(self, samples: Tensor | int) -> Any:
        """Return how many kernels fit into a number of samples."""
        return (samples - self.kernel) // self.stride + 1

    @torch.no_grad()
    def moments(self, waveform: Tensor, sample_lengths: Tensor | None, block_samples: int) -> Moments:
        """Return the statistics of each row's own samples, computed block by block, so that a song of hours fits.

        Args:
            waveform: (batch, samples).
            sample_lengths: (batch,), true lengths of padded rows; statistics that run over padding would make an
                embedding depend on its neighbours in the batch.
            block_samples: samples at a time.
        """
        batch, count = len(waveform), self.outputs(waveform.shape[-1])
        own = None if sample_lengths is None else self.outputs(sample_lengths)
        total = waveform.new_zeros(batch, self.kernel, dtype=torch.float64)
        products = waveform.new_zeros(batch, self.kernel, self.kernel, dtype=torch.float64)
        step = max(1, block_samples // self.stride)
        for first in range(0, count, step):
            last = min(count, first + step)
            piece = waveform[:, first * self.stride : (last - 1) * self.stride + self.kernel]
            windows = piece.unfold(-1, self.kernel, self.stride).double()
            if own is not None:
                windows = windows * (torch.arange(first, last, device=own.device) < own[:, None])[..., None]
            total += windows.sum(1)
            products += windows.mT @ windows
        counts = count if own is None else own.clamp(min=1)[:, None].double()
        mean = total / counts
        covariance = products / (counts if own is None else counts[..., None]) - mean[:, :, None] * mean[:, None]
        return mean, covariance

    def forward(self, waveform: Tensor, moments: Moments) -> Tensor:
        """Map (batch, samples) to (batch, channels, outputs)."""
        mean, covariance = moments
        taps = self.conv.weight[:, 0].double()
        variance = ((taps @ covariance) * taps).sum(-1).clamp(min=0)  # (batch, channels)
        gain = self.layer_norm.weight * torch.rsqrt(variance + self.layer_norm.eps)
        offset = self.layer_norm.bias - mean @ taps.t() * gain
        weight = (gain[:, :, None] * taps).to(waveform.dtype)  # (batch, channels, kernel)
        windows = waveform.unfold(-1, self.kernel, self.stride).mT  # (batch, kernel, outputs)
        return F.gelu(torch.baddbmm(offset[:, :, None].to(waveform.dtype), weight, windows))


class ConvLayer(nn.Module):
    """One of the further strided convolutions, without bias, and exact GELU."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, channels, kernel, stride, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, inputs, time) to (batch, channels, (time - kernel) // stride + 1)."""
        return F.gelu(self.conv(states))


def _call(layer: nn.Module, *given: Any) -> Tensor:
    return layer(*given)


class FeatureExtractor(nn.Module):
    """wav2vec 2.0's convolution stack: stride 320, receptive field 400 samples.

    Attributes:
        recompute: whether training keeps of each layer only what enters it, see ``Encoder``.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        sizes = list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True))
        further = (ConvLayer(before[0], *size) for before, size in pairwise(sizes))
        self.conv_layers = nn.ModuleList([FirstConv(*sizes[0]), *further])
        self.grad_mult, self.recompute = config.feature_grad_mult, False

    def moments(self, waveform: Tensor, sample_lengths: Tensor | None = None, block_samples: int = 1 << 20) -> Moments:
        """Return the statistics that the first layer's norm takes of waveforms; see ``FirstConv.moments``."""
        return self._first.moments(waveform, sample_lengths, block_samples)

    @property
    def _first(self) -> FirstConv:
        return self.conv_layers[0]  # type: ignore[return-value]

    def forward(self, waveform: Tensor, sample_lengths: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Map (batch, samples) to (batch, frames, channels).

        Args:
            waveform: (batch, samples).
            sample_lengths: (batch,), true lengths of padded rows.
            moments: of the whole song when the waveform is a piece of it, see ``moments``.
        """
        if moments is None:
            moments = self.moments(waveform, sample_lengths)
        run = partial(checkpoint, use_reentrant=False) if self.recompute and self.training else _call
        states = run(self._first, waveform, moments)
        for layer in self.conv_layers[1:]:
            states = run(layer, states)
        features = states.mT
        if self.grad_mult != 1.0 and features.requires_grad:
            features = _ScaleGradient.apply(features, self.grad_mult)
        return features


class FeatureProjection(nn.Module):
    """LayerNorm, linear to the encoder's width, dropout."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.feature_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_size, config.hidden_size)
        self.dropout = config.feat_proj_dropout

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frames, channels) to (batch, frames, width)."""
        return F.dropout(self.projection(self.layer_norm(features)), self.dropout, self.training)
