"""From samples to frames: seven strided convolutions, and the projection to the encoder's width."""

from __future__ import annotations

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
"""Mean and variance of each channel of the first convolution over a whole song, each (batch, channels, 1)."""


def _channel_norm(
    features: Tensor, norm: nn.GroupNorm, lengths: Tensor | None, moments: Moments | None = None
) -> Tensor:
    """Normalise each channel over time in fp32, over the first ``lengths`` frames of each row when given.

    Statistics that run over padding would make an embedding depend on its neighbours in the batch. With ``moments``
    the features are a piece of something longer, whose statistics those are.
    """
    values = features.float()
    weight, bias = norm.weight.float(), norm.bias.float()
    if moments is not None:
        mean, variance = moments
        normal = (values - mean) * torch.rsqrt(variance + norm.eps)
        return (normal * weight[:, None] + bias[:, None]).to(features.dtype)
    if lengths is None:
        return F.group_norm(values, norm.num_groups, weight, bias, norm.eps).to(features.dtype)
    valid = torch.arange(values.shape[-1], device=values.device) < lengths[:, None]
    valid = valid[:, None]
    count = lengths[:, None, None].clamp(min=1)
    mean = (values * valid).sum(-1, keepdim=True) / count
    centred = (values - mean) * valid
    variance = centred.square().sum(-1, keepdim=True) / count
    normal = centred * torch.rsqrt(variance + norm.eps)
    return (normal * weight[:, None] + bias[:, None]).to(features.dtype)


class ConvLayer(nn.Module):
    """One bias-free strided convolution and exact GELU; the first has a per-channel GroupNorm between them."""

    def __init__(self, config: MertConfig, index: int) -> None:
        super().__init__()
        channels = config.conv_dim[index]
        inputs = config.conv_dim[index - 1] if index else 1
        self.conv = nn.Conv1d(inputs, channels, config.conv_kernel[index], config.conv_stride[index], bias=False)
        self.layer_norm = nn.GroupNorm(channels, channels) if index == 0 else None

    def forward(self, features: Tensor, lengths: Tensor | None, moments: Moments | None = None) -> Tensor:
        """Map (batch, channels, time) to (batch, channels, fewer frames)."""
        features = self.conv(features)
        if self.layer_norm is not None:
            features = _channel_norm(features, self.layer_norm, lengths, moments)
        return F.gelu(features)


class FeatureExtractor(nn.Module):
    """wav2vec 2.0's convolution stack: stride 320, receptive field 400 samples.

    Attributes:
        recompute: whether training keeps of each layer only what enters it, see ``Encoder``.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, index) for index in range(len(config.conv_dim)))
        self.grad_mult, self.recompute = config.feature_grad_mult, False
        self._first = config.conv_kernel[0], config.conv_stride[0]

    @torch.no_grad()
    def moments(self, waveform: Tensor, block_samples: int = 1 << 18) -> Moments:
        """Return the statistics that the first layer's norm takes of a waveform (batch, samples), block by block.

        Sums are kept in float64, so that a song of hours loses nothing; memory is that of one block.
        """
        kernel, stride = self._first
        count = (waveform.shape[-1] - kernel) // stride + 1
        convolution: nn.Conv1d = self.conv_layers[0].conv  # type: ignore[assignment]
        sums = waveform.new_zeros(2, waveform.shape[0], convolution.out_channels, dtype=torch.float64)
        block = max(1, (block_samples - kernel) // stride + 1)
        for first in range(0, count, block):
            last = min(count, first + block)
            values = convolution(waveform[:, None, first * stride : (last - 1) * stride + kernel]).double()
            sums += torch.stack([values.sum(-1), values.square().sum(-1)])
        mean = sums[0] / count
        variance = (sums[1] / count - mean.square()).clamp(min=0)
        return mean[..., None].float(), variance[..., None].float()

    def forward(self, waveform: Tensor, sample_lengths: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Map (batch, samples) to (batch, frames, channels).

        Args:
            waveform: (batch, samples).
            sample_lengths: (batch,), true lengths of padded rows.
            moments: of the whole song when the waveform is a piece of it, see ``moments``.
        """
        kernel, stride = self._first
        lengths = None if sample_lengths is None else (sample_lengths - kernel) // stride + 1
        features = waveform[:, None]
        for layer in self.conv_layers:
            if self.recompute and self.training:
                features = checkpoint(layer, features, lengths, moments, use_reentrant=False)
            else:
                features = layer(features, lengths, moments)
        features = features.transpose(1, 2)
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
