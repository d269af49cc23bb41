"""The BERT encoder in both orders of its norms: after each block (95M) or before it (330M)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mert_core.model.config import MertConfig


class Attention(nn.Module):
    """Self-attention without bias on the scores, through torch's fused kernel unless it is relaxed."""

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
        if self.relax:
            mixed = relaxed_attention(query, key, value, keys, probability, self.relax)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=probability)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def relaxed_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor | None, probability: float, relax: float
) -> Tensor:
    """Attend with scores that are held ``relax`` times smaller until their maximum is gone.

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
    scores = (scores - scores.amax(-1, keepdim=True)) * relax
    return F.dropout(scores.softmax(-1), probability) @ value


class NormedConv(nn.Module):
    """Grouped convolution with weight normalization over its taps.

    ``weight_g`` and ``weight_v`` are plain parameters under the names of the published checkpoints, so that nothing
    depends on how a torch version spells its parametrization.
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
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        full = F.conv1d(states.mT, weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        return full[..., : states.shape[1]].mT


class PositionEmbedding(nn.Module):
    """Convolution, last frame dropped when the kernel is even, GELU."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.conv = NormedConv(config.hidden_size, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups)

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        return F.gelu(self.conv(states))


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.inner_dropout, self.dropout = config.activation_dropout, config.hidden_dropout

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        inner = F.dropout(F.gelu(self.intermediate_dense(states)), self.inner_dropout, self.training)
        return F.dropout(self.output_dense(inner), self.dropout, self.training)


class EncoderLayer(nn.Module):
    """Attention with ``layer_norm``, feed-forward with ``final_layer_norm``, each with a residual."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.pre_norm, self.dropout = config.do_stable_layer_norm, config.hidden_dropout
        self.residual = (2 * config.num_hidden_layers) ** 0.25 if config.deepnorm else 1.0
        self.attention = Attention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @torch.no_grad()
    def shrink(self, factor: float) -> None:
        """Scale the weights that DeepNorm starts smaller: value, output and both feed-forward projections."""
        inner, outer = self.feed_forward.intermediate_dense, self.feed_forward.output_dense
        for linear in (self.attention.v_proj, self.attention.out_proj, inner, outer):
            linear.weight.mul_(factor)

    def forward(self, states: Tensor, keys: Tensor | None) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        if self.pre_norm:
            attended = self.attention(self.layer_norm(states), keys)
            states = states + F.dropout(attended, self.dropout, self.training)
            return states + self.feed_forward(self.final_layer_norm(states))
        attended = self.attention(states, keys)
        attended = F.dropout(attended, self.dropout, self.training)
        states = self.layer_norm(torch.add(attended, states, alpha=self.residual))
        return self.final_layer_norm(torch.add(self.feed_forward(states), states, alpha=self.residual))


class TransformerEncoder(nn.Module):
    """Position convolution and the layers, with layer drop in training.

    Attributes:
        recompute: whether training keeps of each layer only what enters it, and computes the rest again in the backward
            pass. Gradients are the same.
        draws: the generator that layer drop draws from; None is torch's own.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.pre_norm, self.layerdrop = config.do_stable_layer_norm, config.layerdrop
        self.dropout = config.hidden_dropout
        self.recompute, self.draws = False, None  # type: bool, torch.Generator | None
        self.pos_conv_embed = PositionEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, states: Tensor, frame_lengths: Tensor | None) -> tuple[Tensor, ...]:
        """Return the states 0 … layers, each (batch, frames, width).

        State 0 is the layers' input. With pre-LN the states between are the un-normalised residual stream and the
        last one is after the final norm.
        """
        keys = None
        if frame_lengths is not None:
            exists = torch.arange(states.shape[1], device=states.device) < frame_lengths[:, None]
            states = states * exists[..., None]  # the position convolution must see silence there, as at a clip's end
            keys = exists[:, None, None]
        states = states + self.pos_conv_embed(states)
        if not self.pre_norm:
            states = self.layer_norm(states)
        states = F.dropout(states, self.dropout, self.training)
        collected = [states]
        for layer in self.layers:
            if not (self.training and self.layerdrop > 0 and torch.rand((), generator=self.draws) < self.layerdrop):
                if self.recompute and self.training:
                    states = checkpoint(layer, states, keys, use_reentrant=False)
                else:
                    states = layer(states, keys)
            collected.append(states)
        if self.pre_norm:
            collected[-1] = self.layer_norm(states)
        return tuple(collected)
