"""A pre-training step put together from parts that people have: HubertModel, fairseq's heads, nnAudio's CQT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.comparators.cqt import nnaudio
from benchmarks.comparators.nce import MaterializedHeads
from mert_core.features.cqt import CQT_BINS
from mert_core.model.config import MertConfig, hubert_fields
from mert_core.model.heads import CodeHead
from mert_core.training.targets import Batch

if TYPE_CHECKING:
    from mert_core.config import LossWeights
    from mert_core.training.loss import Objective


def hubert(shape: MertConfig) -> nn.Module:
    """Return a fresh ``transformers.HubertModel`` of a shape, with its dropouts.

    It masks what ``mask_time_indices`` names and draws no masks of its own.
    """
    from transformers import HubertConfig, HubertModel

    fields = {name: value for name, value in hubert_fields(shape).items() if name != "architectures"}
    # mask_time_indices is heeded only with apply_spec_augment; the mask vector exists only with mask_time_prob
    model = HubertModel(HubertConfig(**fields | {"apply_spec_augment": True, "mask_time_prob": 0.05}))
    model.config.mask_time_prob = 0.0
    return model


def copy_weights(source: Objective, target: ReferenceObjective) -> None:
    """Give a reference the weights of our encoder and heads."""
    renamed = {
        name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
            "conv.weight_v", "conv.parametrizations.weight.original1"
        ): value
        for name, value in source.encoder.state_dict().items()
    }
    target.hubert.load_state_dict(renamed)
    codes = source.heads.codes["encodec"]
    assert isinstance(codes, CodeHead)
    target.heads.take(codes)
    target.cqt_head.load_state_dict(source.heads.spectra["cqt"].state_dict())


class ReferenceObjective(nn.Module):
    """MERT's published loss as a training script on top of transformers has it.

    Args:
        shape: of the encoder.
        heads: fairseq's.
        weights: of the terms.
    """

    def __init__(self, shape: MertConfig, heads: MaterializedHeads, weights: LossWeights) -> None:
        super().__init__()
        self.hubert, self.heads, self.weights = hubert(shape), heads, weights
        self.grad_mult = shape.feature_grad_mult
        self.cqt_head = nn.Linear(shape.hidden_size, CQT_BINS)
        self.cqt = nnaudio()
        self._conv_features: list[Tensor] = []
        self.hubert.get_submodule("feature_extractor").register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _given: Any, features: Tensor) -> Tensor:
        if self.grad_mult != 1.0 and features.requires_grad:
            features.register_hook(lambda gradient: gradient * self.grad_mult)
        self._conv_features = [features]
        return features

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, a sum over masked frames; see ``mert_core.training.loss.Objective``."""
        states = self.hubert(batch.noisy, mask_time_indices=batch.mask).last_hidden_state[batch.mask]
        loss = self.heads(states, batch.stored["encodec"][batch.mask])
        with torch.no_grad():
            target = self.cqt(batch.clean).transpose(1, 2)[:, : batch.mask.shape[1]][batch.mask]
        error = (self.cqt_head(states).float() - target).square().mean(-1).sum()
        penalty = self._conv_features.pop().float().square().mean()
        return loss + error + batch.masked_frames * self.weights.feature_penalty * penalty
