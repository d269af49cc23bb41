"""A pre-training step put together from parts that people have: HubertModel, fairseq's heads, nnAudio's CQT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.comparators.nce import MaterialisedHeads
from mert_core.model import export_hubert
from mert_core.pretrain.data import Batch

if TYPE_CHECKING:
    from mert_core.config import LossWeights
    from mert_core.model import MertModel


class _GradMultiply(torch.autograd.Function):
    """fairseq's: identity forward, a scaled gradient backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


def hubert_like(encoder: MertModel) -> nn.Module:
    """Return ``transformers.HubertModel`` with an encoder's weights, dropouts and layer drop.

    It masks what ``mask_time_indices`` names and draws no masks of its own.
    """
    from transformers import HubertModel

    with tempfile.TemporaryDirectory() as folder:
        export_hubert(encoder, Path(folder) / "hubert")
        model = HubertModel.from_pretrained(Path(folder) / "hubert")
    model.config.apply_spec_augment = True  # else it ignores mask_time_indices
    model.config.mask_time_prob = model.config.mask_feature_prob = 0.0
    return model


class ReferenceObjective(nn.Module):
    """MERT's published loss as a training script on top of transformers has it.

    Args:
        encoder: whose weights are copied; ours stays as it is.
        heads: fairseq's.
        weights: of the terms.
    """

    def __init__(self, encoder: MertModel, heads: MaterialisedHeads, weights: LossWeights) -> None:
        super().__init__()
        from nnAudio.features.cqt import CQT1992v2

        self.hubert, self.heads, self.weights = hubert_like(encoder), heads, weights
        self.grad_mult = encoder.config.feature_grad_mult
        self.cqt_head = nn.Linear(encoder.config.hidden_size, 336)
        self.cqt = CQT1992v2(
            sr=24000, hop_length=320, fmin=32.7, n_bins=336, bins_per_octave=48, norm=1, window="hann",
            center=True, pad_mode="constant", trainable=False, verbose=False,
        )  # fmt: skip
        self._conv_features: list[Tensor] = []
        self.hubert.feature_extractor.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _given: Any, features: Tensor) -> Tensor:
        if self.grad_mult != 1.0 and features.requires_grad:
            features = _GradMultiply.apply(features, self.grad_mult)
        self._conv_features = [features]
        return features

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, a sum over masked frames; see ``mert_core.pretrain.objective.Objective``."""
        states = self.hubert(batch.noisy, mask_time_indices=batch.mask).last_hidden_state[batch.mask]
        loss = self.weights.acoustic * self.heads(states, batch.codes[batch.mask])
        with torch.no_grad():
            target = self.cqt(batch.clean).transpose(1, 2)[:, : batch.mask.shape[1]][batch.mask]
        error = (self.cqt_head(states).float() - target).square().mean(-1).sum()
        penalty = self._conv_features.pop().float().square().mean()
        return loss + self.weights.musical * error + batch.masked_frames * self.weights.feature_penalty * penalty
