"""MERT's loss: the acoustic teacher's codes and the CQT at masked frames, and a penalty on the convolution features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.cqt import ConstantQ
from mert_core.model.config import preset
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.pretrain.data import Batch
from mert_core.pretrain.start import load_start

if TYPE_CHECKING:
    from mert_core.config import LossWeights, Pretrain


@dataclass(frozen=True)
class Losses:
    """What one micro-batch gives.

    Attributes:
        weighted: () the loss as published, a sum over masked frames, to be divided by their global number.
        acoustic: (codebooks,) cross-entropy summed over masked frames; 0 for codebooks that were not asked for.
        musical: () CQT squared error, mean over bins and masked frames.
        feature_penalty: () mean square of the convolution features.
        correct: (codebooks,) masked frames whose code is guessed.
        asked: (codebooks,) 1 where the codebook was to be predicted, else 0.
    """

    weighted: Tensor
    acoustic: Tensor
    musical: Tensor
    feature_penalty: Tensor
    correct: Tensor
    asked: Tensor


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
        """Return a micro-batch's losses: Σ CE · acoustic + N · (penalty + musical) for N masked frames.

        The sum of the cross-entropies runs over the masked frames and over ``batch.codebooks``.
        """
        output = self.encoder(batch.noisy, mask=batch.mask)
        states = output.last_hidden_state[batch.mask]
        asked = list(batch.codebooks)
        codes = batch.codes[batch.mask].T[asked]
        logits = self.heads.code_logits(states, asked)
        entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        acoustic = entropies.view(len(asked), -1).sum(1)
        musical = F.mse_loss(self.heads.cqt(states).float(), self.cqt_target(batch)[batch.mask])
        penalty = output.conv_features.float().square().mean()
        weighted = self.weights.acoustic * acoustic.sum() + batch.masked_frames * (
            self.weights.feature_penalty * penalty + self.weights.musical * musical
        )
        with torch.no_grad():
            correct = (logits.argmax(-1) == codes).sum(1)
        spread = acoustic.new_zeros(3, self.heads.codebooks)
        spread[:, asked] = torch.stack([acoustic.detach(), correct.to(acoustic.dtype), torch.ones_like(acoustic)])
        return Losses(weighted, spread[0], musical.detach(), penalty.detach(), spread[1], spread[2])

    @torch.no_grad()
    def cqt_target(self, batch: Batch) -> Tensor:
        """Return the clean crop's CQT, (batch, frames, 336), cut to the student's frames."""
        with torch.autocast(batch.clean.device.type, enabled=False):
            return self.constant_q(batch.clean)[:, : batch.mask.shape[1]]


def build_objective(params: Pretrain, codebooks: int, entries: int, seed: int, start: Path | None = None) -> Objective:
    """Return the student and heads of a run, freshly initialised or as a checkpoint folder has them.

    Args:
        params: of the run.
        codebooks: of the acoustic teacher.
        entries: per codebook.
        seed: of fresh weights.
        start: the folder of ``params.start``.

    Raises:
        MertError: DeepNorm on a pre-LN encoder, or the checkpoint is of another shape or teacher than the run.
    """
    shape = preset(params.preset, params.layer_norm, params.deepnorm, params.attention_relax)
    encoder = MertModel(shape, seed)
    heads = Heads(
        shape.hidden_size, codebooks, entries, shape.final_dim, params.temperature, seed + 1, params.learn_temperature
    )
    if start is not None and params.start is not None:
        load_start(encoder, heads, start, fresh_heads=params.start.heads == "fresh")
    return Objective(encoder, heads, params.weights)
