"""MERT's loss: the acoustic teacher's codes and spectra at masked frames, and a penalty on the convolution features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.cqt import ConstantQ
from mert_core.audio.spectra import LogMel, chroma
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
        mel: () the same of the log-mel spectrum; 0 without weight.
        chroma: () the same of the chroma; 0 without weight.
        feature_penalty: () mean square of the convolution features.
        correct: (codebooks,) masked frames whose code is guessed.
        asked: (codebooks,) 1 where the codebook was to be predicted, else 0.
    """

    weighted: Tensor
    acoustic: Tensor
    musical: Tensor
    mel: Tensor
    chroma: Tensor
    feature_penalty: Tensor
    correct: Tensor
    asked: Tensor


class Objective(nn.Module):
    """Encoder and heads as one module: waveform and targets in, losses out.

    The CQT target has nnAudio's linear scale, as published. All targets are of the clean crop.

    Args:
        encoder: the student.
        heads: its pre-training heads.
        weights: of the terms.
    """

    def __init__(self, encoder: MertModel, heads: Heads, weights: LossWeights) -> None:
        super().__init__()
        self.encoder, self.heads, self.weights = encoder, heads, weights
        self.constant_q = ConstantQ()
        self.log_mel = LogMel() if weights.mel else None

    def forward(self, batch: Batch) -> Losses:
        """Return a micro-batch's losses: Σ CE · acoustic + N · (penalty + musical + …) for N masked frames.

        The sum of the cross-entropies runs over the masked frames and over ``batch.codebooks``. ``weights.unmasked``
        adds the same terms over the other frames (fairseq's ``pred_nomask_weight``, 0 in every MERT); what is returned
        by name is of the masked frames alone.
        """
        output = self.encoder(batch.noisy, mask=batch.mask)
        asked = list(batch.codebooks)
        spectra = self.spectra(batch)
        weighted, entropies, correct, errors = self._at(batch.mask, output.last_hidden_state, batch, spectra, asked)
        if self.weights.unmasked:
            others, *_ = self._at(~batch.mask, output.last_hidden_state, batch, spectra, asked)
            weighted = weighted + self.weights.unmasked * others
        penalty = output.conv_features.float().square().mean()
        weighted = weighted + batch.masked_frames * self.weights.feature_penalty * penalty
        spread = entropies.new_zeros(3, self.heads.codebooks)
        spread[:, asked] = torch.stack([entropies.detach(), correct.to(entropies.dtype), torch.ones_like(entropies)])
        none = penalty.new_zeros(())
        mel, folded = errors.get("mel", none), errors.get("chroma", none)
        return Losses(
            weighted, spread[0], errors["musical"].detach(), mel.detach(), folded.detach(), penalty.detach(),
            spread[1], spread[2],
        )  # fmt: skip

    def _at(
        self, frames: Tensor, states: Tensor, batch: Batch, spectra: dict[str, Tensor], asked: list[int]
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return weighted sum, cross-entropies and correct guesses per asked codebook, and squared errors by name."""
        states, codes = states[frames], batch.codes[frames].T[asked]
        logits = self.heads.code_logits(states, asked)
        entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        acoustic = entropies.view(len(asked), -1).sum(1)
        errors = {
            name: F.mse_loss(self.heads.spectrum(name, states).float(), target[frames])
            for name, target in spectra.items()
        }
        regression = sum(
            (getattr(self.weights, name) * error for name, error in errors.items()), acoustic.new_zeros(())
        )
        correct = (logits.detach().argmax(-1) == codes).sum(1)
        return self.weights.acoustic * acoustic.sum() + len(states) * regression, acoustic, correct, errors

    @torch.no_grad()
    def spectra(self, batch: Batch) -> dict[str, Tensor]:
        """Return the clean crop's CQT, and log-mel spectrum and chroma where they have weight.

        Each is (batch, frames, bins), cut to the student's frames.
        """
        frames = batch.mask.shape[1]
        cqt = self.cqt_target(batch)
        found = {"musical": cqt}
        if self.log_mel is not None:
            found["mel"] = self.log_mel(batch.clean)[:, :frames]
        if self.weights.chroma:
            found["chroma"] = chroma(cqt)
        return found

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
    extra = [name for name in ("mel", "chroma") if getattr(params.weights, name)]
    heads = Heads(
        shape.hidden_size, codebooks, entries, shape.final_dim, params.temperature, seed + 1, params.learn_temperature,
        extra,
    )  # fmt: skip
    if start is not None and params.start is not None:
        load_start(encoder, heads, start, fresh_heads=params.start.heads == "fresh")
    return Objective(encoder, heads, params.weights)
