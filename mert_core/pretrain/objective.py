"""MERT's loss: the acoustic teacher's codes and the CQT at masked frames, and a penalty on the convolution features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.cqt import ConstantQ
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.pretrain.data import Batch

if TYPE_CHECKING:
    from mert_core.config import LossWeights, Pretrain


@dataclass(frozen=True)
class Losses:
    """What one micro-batch gives.

    Attributes:
        weighted: () the loss as published, a sum over masked frames, to be divided by their global number.
        acoustic: (codebooks,) cross-entropy summed over masked frames.
        musical: () CQT squared error, mean over bins and masked frames.
        feature_penalty: () mean square of the convolution features.
        correct: (codebooks,) masked frames whose code is guessed.
    """

    weighted: Tensor
    acoustic: Tensor
    musical: Tensor
    feature_penalty: Tensor
    correct: Tensor


class Objective(nn.Module):
    """Encoder and heads as one module: waveform and targets in, losses out.

    The CQT target has nnAudio's linear scale, as published, and is computed from the clean crop.

    Args:
        encoder: the student.
        heads: its pre-training heads.
        weights: of the three terms.
    """

    def __init__(self, encoder: MertModel, heads: Heads, weights: LossWeights) -> None:
        super().__init__()
        self.encoder, self.heads, self.weights = encoder, heads, weights
        self.constant_q = ConstantQ()

    def forward(self, batch: Batch) -> Losses:
        """Return a micro-batch's losses: Σ CE · acoustic + N · (penalty + musical) for N masked frames."""
        output = self.encoder(batch.noisy, mask=batch.mask)
        states = output.last_hidden_state[batch.mask]
        codes = batch.codes[batch.mask].T
        logits = self.heads.code_logits(states)
        entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        acoustic = entropies.view(self.heads.codebooks, -1).sum(1)
        musical = F.mse_loss(self.heads.cqt(states).float(), self.cqt_target(batch)[batch.mask])
        penalty = output.conv_features.float().square().mean()
        weighted = self.weights.acoustic * acoustic.sum() + batch.masked_frames * (
            self.weights.feature_penalty * penalty + self.weights.musical * musical
        )
        with torch.no_grad():
            correct = (logits.argmax(-1) == codes).sum(1)
        return Losses(weighted, acoustic.detach(), musical.detach(), penalty.detach(), correct)

    @torch.no_grad()
    def cqt_target(self, batch: Batch) -> Tensor:
        """Return the clean crop's CQT, (batch, frames, 336), cut to the student's frames."""
        with torch.autocast(batch.clean.device.type, enabled=False):
            return self.constant_q(batch.clean)[:, : batch.mask.shape[1]]


def build_objective(params: Pretrain, codebooks: int, entries: int, seed: int) -> Objective:
    """Return the freshly initialised student and heads of a run."""
    encoder = MertModel.from_preset(params.preset, seed)
    shape = encoder.config
    heads = Heads(shape.hidden_size, codebooks, entries, shape.final_dim, params.temperature, seed + 1)
    return Objective(encoder, heads, params.weights)
