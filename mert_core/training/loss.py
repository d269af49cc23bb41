"""MERT's loss: what the teachers say at masked frames, and a penalty on the convolution features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.model.config import preset
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.training.batch import Batch
from mert_core.training.targets import TargetSet
from mert_core.training.warm_start import load_start

if TYPE_CHECKING:
    from mert_core.config import LossWeights, PretrainConfig


class Losses(NamedTuple):
    """What one micro-batch gives; a tuple, in which torch's wrappers for many workers find the tensors.

    Attributes:
        weighted: () the loss as published, a sum over masked frames, to be divided by their global number.
        entropies: (codebooks,) cross-entropy summed over masked frames, of all codebooks of all teachers, in the order
            of ``TargetSet.books``; 0 for those that were not asked for.
        correct: (codebooks,) masked frames whose code is guessed.
        asked: (codebooks,) 1 where the codebook was to be predicted, else 0.
        errors: (spectra,) squared error, mean over bins and masked frames, in the order of ``TargetSet.spectra``.
        feature_penalty: () mean square of the convolution features.
    """

    weighted: Tensor
    entropies: Tensor
    correct: Tensor
    asked: Tensor
    errors: Tensor
    feature_penalty: Tensor


class Objective(nn.Module):
    """Encoder and heads as one module: waveform and targets in, losses out. All targets are of the clean crop.

    Args:
        encoder: the student.
        heads: its pre-training heads, one for each teacher.
        weights: of the terms that belong to no teacher.
        teaching: what is predicted.
    """

    def __init__(self, encoder: MertModel, heads: Heads, weights: LossWeights, teaching: TargetSet) -> None:
        super().__init__()
        self.encoder, self.heads, self.weights, self.teaching = encoder, heads, weights, teaching

    def forward(self, batch: Batch) -> Losses:
        """Return a micro-batch's losses: Σ CE · weight + N · (penalty + Σ MSE · weight) for N masked frames.

        The sum of a teacher's cross-entropies runs over the masked frames and over ``batch.asked``.
        ``weights.unmasked`` adds the same terms over the other frames (fairseq's ``pred_nomask_weight``, 0 in every
        MERT); what is returned by name is of the masked frames alone.
        """
        output = self.encoder(batch.noisy, mask=batch.mask)
        targets = self.teaching.targets(batch)
        everywhere = bool(self.weights.unmasked)

        def learned(values: Tensor) -> Tensor:
            """Return (positions, …) of the masked frames, or of all."""
            return values.flatten(0, 1) if everywhere else values[batch.mask]

        masked: Tensor | slice = batch.mask.flatten() if everywhere else slice(None)
        share = torch.where(batch.mask, 1.0, self.weights.unmasked).flatten() if everywhere else None

        states = learned(output.last_hidden_state)
        penalty = output.conv_features.float().square().mean()
        weighted = batch.masked_frames * self.weights.feature_penalty * penalty
        books: list[Tensor] = []
        errors: list[Tensor] = []
        for lesson in self.teaching.lessons:
            target = learned(targets[lesson.teacher])
            if lesson.teacher in self.teaching.codes:
                asked = list(batch.asked[lesson.teacher])
                codes = target.T[asked]
                logits = self.heads.codes[lesson.teacher](states, asked)
                entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
                entropies = entropies.view(len(asked), -1)
                weighted = weighted + lesson.weight * _sum(entropies, share)
                correct = (logits.detach().argmax(-1) == codes)[:, masked].sum(1)
                summed = entropies.detach()[:, masked].sum(1)
                spread = entropies.new_zeros(3, self.teaching.codes[lesson.teacher].codebooks)
                spread[:, asked] = torch.stack([summed, correct.to(summed.dtype), torch.ones_like(summed)])
                books.append(spread)
            else:
                error = (self.heads.spectra[lesson.teacher](states).float() - target).square().mean(-1)
                weighted = weighted + lesson.weight * _sum(error, share)
                errors.append(error.detach()[masked].mean())
        of_books = torch.cat(books, dim=1) if books else penalty.new_zeros(3, 0)
        of_spectra = torch.stack(errors) if errors else penalty.new_zeros(0)
        entropies, hits, were_asked = of_books.unbind()
        return Losses(weighted, entropies, hits, were_asked, of_spectra, penalty.detach())

    def masked_codes(self, noisy: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the last states, (batch, frames, width) in fp32, and by teacher the code logits at masked frames.

        The logits are (codebooks, masked frames, entries), of all codebooks.
        """
        states = self.encoder(noisy, mask=mask).last_hidden_state.float()
        return states, {name: head(states[mask]) for name, head in self.heads.codes.items()}

    def guessed_spectra(self, noisy: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the predicted spectra by teacher, (batch, frames, bins)."""
        states = self.encoder(noisy, mask=mask).last_hidden_state
        return {name: head(states) for name, head in self.heads.spectra.items()}


def _sum(errors: Tensor, share: Tensor | None) -> Tensor:
    """Sum (…, positions), each position by its share."""
    return errors.sum() if share is None else (errors * share).sum()


def build_objective(params: PretrainConfig, teaching: TargetSet, seed: int, start: Path | None = None) -> Objective:
    """Return the student and heads of a run, freshly initialised or as a checkpoint folder has them.

    Args:
        params: of the run.
        teaching: what it predicts.
        seed: of fresh weights.
        start: the folder of ``params.start``.

    Raises:
        MertError: DeepNorm on a pre-LN encoder, or the checkpoint is of another shape or teacher than the run.
    """
    shape = preset(params.preset, params.layer_norm, params.deepnorm, params.attention_relax)
    encoder = MertModel(shape, seed)
    codes = {name: (kind.codebooks, kind.entries) for name, kind in teaching.codes.items()}
    spectra = {name: kind.bins for name, kind in teaching.spectra.items()}
    heads = Heads(
        shape.hidden_size, codes, spectra, shape.final_dim, params.temperature, seed + 1, params.learn_temperature
    )
    if start is not None and params.start is not None:
        load_start(encoder, heads, start, fresh_heads=params.start.heads == "fresh")
    return Objective(encoder, heads, params.weights, teaching)


@torch.no_grad()
def tally(losses: Losses, masked_frames: int) -> Tensor:
    """Return one vector of sums over masked frames, float64, that adds up over micro-batches and workers.

    Its parts: frames, feature penalty; a squared error per teacher of a spectrum; per codebook: cross-entropy, correct
    guesses, frames it was asked for.
    """
    frames = losses.weighted.new_full((1,), masked_frames, dtype=torch.float64)
    scalars = torch.cat([losses.feature_penalty[None], losses.errors]).double() * frames
    return torch.cat(
        [frames, scalars, losses.entropies.double(), losses.correct.double(), losses.asked.double() * frames]
    )


def no_sums(teaching: TargetSet, device: torch.device) -> Tensor:
    """Return the tally of no micro-batch at all."""
    length = 2 + len(teaching.spectra) + 3 * len(teaching.books)
    return torch.zeros(length, dtype=torch.float64, device=device)


def terms(total: Tensor, objective: Objective) -> dict[str, float]:
    """Return the unweighted terms by name, per masked frame, and ``loss``, their weighted sum.

    A term has its teacher's name. Cross-entropies are summed over the codebooks asked for, as in the loss;
    ``accuracy`` is the mean over all of them.
    """
    teaching = objective.teaching
    frames, penalty, errors, entropies, correct, asked = _parts(total, teaching)
    values = dict.fromkeys(teaching.weights, 0.0)
    for name, error in zip(teaching.spectra, errors, strict=True):
        values[name] = error / frames
    for (name, _), entropy in zip(teaching.books, entropies, strict=True):
        values[name] += entropy / frames
    loss = sum(weight * values[name] for name, weight in teaching.weights.items())
    loss += objective.weights.feature_penalty * penalty / frames
    values["feature_penalty"] = penalty / frames
    accuracy = {"accuracy": sum(correct) / sum(asked)} if teaching.books else {}
    return {"loss": loss, **values, **accuracy}


def codebook_terms(total: Tensor, teaching: TargetSet) -> dict[str, float]:
    """Return cross-entropy (nats) and accuracy of each codebook that was asked for, by name."""
    _, _, _, entropies, correct, asked = _parts(total, teaching)
    found: dict[str, float] = {}
    for (name, book), entropy, hits, frames in zip(teaching.books, entropies, correct, asked, strict=True):
        if frames:
            found |= {f"{name}_{book}": entropy / frames, f"accuracy_{name}_{book}": hits / frames}
    return found


def _parts(
    total: Tensor, teaching: TargetSet
) -> tuple[float, float, list[float], list[float], list[float], list[float]]:
    values, books = total.tolist(), len(teaching.books)
    first = 2 + len(teaching.spectra)
    per_book = [values[first + number * books : first + (number + 1) * books] for number in range(3)]
    return values[0], values[1], values[2:first], *per_book
