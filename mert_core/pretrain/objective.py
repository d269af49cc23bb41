"""MERT's loss: the acoustic teacher's codes and spectra at masked frames, and a penalty on the convolution features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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


class Losses(NamedTuple):
    """What one micro-batch gives; a tuple, in which torch's wrappers for many workers find the tensors.

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
        targets = self.spectra(batch)
        everywhere = bool(self.weights.unmasked)

        def learned(values: Tensor) -> Tensor:
            """Return (positions, …) of the masked frames, or of all."""
            return values.flatten(0, 1) if everywhere else values[batch.mask]

        masked: Tensor | slice = batch.mask.flatten() if everywhere else slice(None)
        share = torch.where(batch.mask, 1.0, self.weights.unmasked).flatten() if everywhere else None

        asked = list(batch.codebooks)
        states, codes = learned(output.last_hidden_state), learned(batch.codes).T[asked]
        logits = self.heads.code_logits(states, asked)
        entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(len(asked), -1)
        correct = (logits.detach().argmax(-1) == codes)[:, masked].sum(1)
        weighted = self.weights.acoustic * _sum(entropies, share)

        means = {}
        for name, target in targets.items():
            error = (self.heads.spectrum(name, states).float() - learned(target)).square().mean(-1)
            weighted = weighted + getattr(self.weights, name) * _sum(error, share)
            means[name] = error.detach()[masked].mean()

        penalty = output.conv_features.float().square().mean()
        weighted = weighted + batch.masked_frames * self.weights.feature_penalty * penalty
        spread = entropies.new_zeros(3, self.heads.codebooks)
        acoustic = entropies.detach()[:, masked].sum(1)
        spread[:, asked] = torch.stack([acoustic, correct.to(acoustic.dtype), torch.ones_like(acoustic)])
        none = penalty.new_zeros(())
        return Losses(
            weighted, spread[0], means["musical"], means.get("mel", none), means.get("chroma", none), penalty.detach(),
            spread[1], spread[2],
        )  # fmt: skip

    def masked_codes(self, noisy: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last states, (batch, frames, width) in fp32, and the code logits at masked frames.

        The logits are (codebooks, masked frames, entries), of all codebooks.
        """
        states = self.encoder(noisy, mask=mask).last_hidden_state.float()
        return states, self.heads.code_logits(states[mask])

    def musical_guess(self, noisy: Tensor, mask: Tensor) -> Tensor:
        """Return the predicted CQT, (batch, frames, 336)."""
        return self.heads.cqt(self.encoder(noisy, mask=mask).last_hidden_state)

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


def _sum(errors: Tensor, share: Tensor | None) -> Tensor:
    """Sum (…, positions), each position by its share."""
    return errors.sum() if share is None else (errors * share).sum()


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
