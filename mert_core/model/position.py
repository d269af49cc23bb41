"""The only position information: one wide grouped convolution whose output is added to its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.model.config import MertConfig
from mert_core.model.spectral import spectral_conv


class NormedConv(nn.Module):
    """Grouped convolution with weight normalisation over its taps.

    ``weight_g`` and ``weight_v`` are plain parameters under the names of the published checkpoints, so that nothing
    depends on how a torch version spells its parametrisation.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups, self.kernel = groups, kernel
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_g = nn.Parameter(torch.empty(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, kernel))

    def reset(self) -> None:
        """Draw the weight from N(0, √(4/(kernel·width))); the gain is its norm, so that it stays as drawn."""
        nn.init.normal_(self.weight_v, std=math.sqrt(4 / (self.kernel * self.weight_v.shape[0])))
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.weight_g.copy_(self.weight_v.norm(dim=(0, 1), keepdim=True))

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        if states.device.type == "cpu":
            gain = self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True)
            return spectral_conv(states, self.weight_v, gain.flatten(), self.groups).to(states.dtype) + self.bias
        weight = torch._weight_norm(self.weight_v, self.weight_g, 2)
        full = F.conv1d(states.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        return full[..., : states.shape[1]].transpose(1, 2)


class PositionEmbedding(nn.Module):
    """Convolution, last frame dropped when the kernel is even, GELU."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.conv = NormedConv(config.hidden_size, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups)

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        return F.gelu(self.conv(states))
