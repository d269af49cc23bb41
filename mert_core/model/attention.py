"""Full self-attention over the frames of a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.model.config import MertConfig
from mert_core.model.dropout import draws_cheaply, dropout


class Attention(nn.Module):
    """Self-attention without bias on the scores.

    Through torch's fused kernel, unless it is relaxed, or weights are dropped on a CPU, where there is no such kernel.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.dropout, self.relax = (
            config.num_attention_heads,
            config.attention_dropout,
            config.attention_relax,
        )
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor, keys: Tensor | None) -> Tensor:
        """Map (batch, frames, width) to the same shape; ``keys`` (batch, 1, 1, frames) is true where a frame exists."""
        query, key, value = (
            layer(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        probability = self.dropout if self.training else 0.0
        if self.relax or (probability and draws_cheaply(query)):
            mixed = _attention(query, key, value, keys, probability, self.relax or 1.0)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=probability)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor | None, probability: float, relax: float
) -> Tensor:
    """Attend step by step; with scores held ``relax`` times smaller until their maximum is gone when that is not 1.

    Args:
        query: (batch, heads, frames, width / heads), like ``key`` and ``value``.
        key: what is attended to.
        value: what is averaged.
        keys: (batch, 1, 1, frames), true where a frame exists.
        probability: of dropout, of the attention weights.
        relax: see ``MertConfig.attention_relax``.
    """
    scores = (query / (relax * math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
    if keys is not None:
        scores = scores.masked_fill(~keys, -torch.inf)
    if relax != 1.0:
        scores = (scores - scores.amax(-1, keepdim=True)) * relax
    return dropout(scores.softmax(-1), probability, training=True) @ value
