"""The BERT encoder in both orders of its norms: after each block (95M) or before it (330M)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mert_core.model.attention import Attention
from mert_core.model.config import MertConfig
from mert_core.model.dropout import dropout
from mert_core.model.position import PositionEmbedding


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.inner_dropout, self.dropout = config.activation_dropout, config.hidden_dropout

    def forward(self, states: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        inner = dropout(F.gelu(self.intermediate_dense(states)), self.inner_dropout, self.training)
        return dropout(self.output_dense(inner), self.dropout, self.training)


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
            states = states + dropout(attended, self.dropout, self.training)
            return states + self.feed_forward(self.final_layer_norm(states))
        attended = self.attention(states, keys)
        attended = dropout(attended, self.dropout, self.training)
        states = self.layer_norm(torch.add(attended, states, alpha=self.residual))
        return self.final_layer_norm(torch.add(self.feed_forward(states), states, alpha=self.residual))


class Encoder(nn.Module):
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
        states = dropout(states, self.dropout, self.training)
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
