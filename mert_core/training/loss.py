"""MERT's loss: predictions against targets at masked frames, and a penalty on the convolution features.

A term is named after its teacher, or is ``feature_penalty``. `Objective` gives the whole loss, for the backward pass,
and the terms as sums over masked frames, which add up over micro-batches and workers. `mean_terms` makes figures of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.data.target_kinds import Codes
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.training.targets import Batch, TargetSpec, codes_of
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import LossWeights

Sums = dict[str, Tensor]
"""Terms by name, float64: what is summed over frames, and over how many frames, (2,) or for codes (2, codebooks).

A teacher of codes has two entries: its cross-entropy and, as ``accuracy_NAME``, its correct guesses.
"""


class Losses(NamedTuple):
    """The losses of one micro-batch; a tuple, in which torch's wrappers for many workers find the tensors.

    Attributes:
        weighted: () the loss as published, a sum over masked frames, to be divided by their global number.
        sums: the terms without weights, over the masked frames alone.
    """

    weighted: Tensor
    sums: Sums


class Objective(nn.Module):
    """Encoder and heads as one module: waveforms and targets in, losses out.

    Args:
        encoder: the student.
        heads: its pre-training heads, one for each teacher.
        weights: weights of the terms that belong to no teacher.
        specs: teachers to predict, with the weights of their terms.
    """

    def __init__(self, encoder: MertModel, heads: Heads, weights: LossWeights, specs: Sequence[TargetSpec]) -> None:
        super().__init__()
        self.encoder, self.heads, self.weights, self.specs = encoder, heads, weights, tuple(specs)

    def forward(self, batch: Batch, targets: dict[str, Tensor]) -> Losses:
        """Return a micro-batch's losses: Σ CE · weight + N · (penalty · weight + Σ MSE · weight) for N masked frames.

        The sum of a teacher's cross-entropies runs over the masked frames and over ``batch.codebook_ids``.
        ``weights.unmasked`` adds the same terms over the other frames (fairseq's ``pred_nomask_weight``, 0 in every
        MERT); the sums by name are of the masked frames alone.

        Args:
            batch: crops, masks and the codebooks to predict.
            targets: (batch, frames, width) of the clean crops, by teacher.
        """
        output = self.encoder(batch.noisy, mask=batch.mask)
        frames = batch.masked_frames
        penalty = output.conv_features.float().square().mean()
        weighted = frames * self.weights.feature_penalty * penalty
        sums = {"feature_penalty": _over(penalty.detach().double() * frames, frames)}

        # The heads see the masked frames alone, or all frames, and then `masked` picks those that the sums count.
        everywhere = bool(self.weights.unmasked)

        def positions(values: Tensor) -> Tensor:
            return values.flatten(0, 1) if everywhere else values[batch.mask]

        masked: Tensor | slice = batch.mask.flatten() if everywhere else slice(None)
        factors = torch.where(batch.mask, 1.0, self.weights.unmasked).flatten() if everywhere else None
        states = positions(output.last_hidden_state)
        for spec in self.specs:
            name, target = spec.teacher, positions(targets[spec.teacher])
            if isinstance(spec.kind, Codes):
                ids = list(batch.codebook_ids[name])
                codes = target.T[ids]
                logits = self.heads.codes[name](states, ids)
                entropies = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
                entropies = entropies.view(len(ids), -1)
                weighted = weighted + spec.weight * _total(entropies, factors)
                correct = logits.detach().argmax(-1) == codes
                for term, values in ((name, entropies.detach()), (f"accuracy_{name}", correct)):
                    sums[term] = entropies.new_zeros(2, spec.kind.codebooks, dtype=torch.float64)
                    sums[term][:, ids] = _over(values[:, masked].sum(1).double(), frames)
            else:
                errors = (self.heads.spectra[name](states).float() - target).square().mean(-1)
                weighted = weighted + spec.weight * _total(errors, factors)
                sums[name] = _over(errors.detach()[masked].mean().double() * frames, frames)
        return Losses(weighted, sums)

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


def _total(values: Tensor, factors: Tensor | None) -> Tensor:
    """Sum (…, positions), each position times its factor."""
    return values.sum() if factors is None else (values * factors).sum()


def _over(total: Tensor, frames: int) -> Tensor:
    """Return an entry of `Sums` (2, …): a total, and the frames it runs over."""
    return torch.stack([total, torch.full_like(total, frames)])


def add_sums(sums: Sums, more: Sums) -> Sums:
    """Return the sums of both; the first may be empty."""
    return {name: sums.get(name, 0) + value for name, value in more.items()}


def sum_over_workers(sums: Sums, worker: Worker) -> Sums:
    """Return the sums of all workers, on the CPU; all of them must call this together with the same terms."""
    flat = worker.sum(torch.cat([value.flatten() for value in sums.values()])).cpu()
    parts = flat.split([value.numel() for value in sums.values()])
    return {name: part.view_as(value) for (name, value), part in zip(sums.items(), parts, strict=True)}


def mean_terms(sums: Sums, objective: Objective) -> dict[str, float]:
    """Return the terms per masked frame without weights, and before them ``loss``, their weighted sum.

    Cross-entropies are summed over the codebooks that were predicted, as in the loss. ``accuracy`` is the mean over all
    of them and over all teachers.
    """
    totals = {name: value.tolist() for name, value in sums.items()}
    penalty, frames = totals["feature_penalty"]  # of all micro-batches, while codebooks are predicted in some
    values: dict[str, float] = {}
    correct, guesses = 0.0, 0.0
    for spec in objective.specs:
        name = spec.teacher
        if isinstance(spec.kind, Codes):
            values[name] = sum(entropy / frames for entropy in totals[name][0])
            correct += sum(totals[f"accuracy_{name}"][0])
            guesses += sum(totals[f"accuracy_{name}"][1])
        else:
            values[name] = totals[name][0] / frames
    loss = sum(spec.weight * values[spec.teacher] for spec in objective.specs)
    loss += objective.weights.feature_penalty * penalty / frames
    values["feature_penalty"] = penalty / frames
    return {"loss": loss, **values, **({"accuracy": correct / guesses} if guesses else {})}


def codebook_terms(sums: Sums, specs: Sequence[TargetSpec]) -> dict[str, float]:
    """Return cross-entropy (nats) and accuracy of each codebook that was predicted, by name."""
    values: dict[str, float] = {}
    for name in codes_of(specs):
        entropies, frames = sums[name].tolist()
        correct, _ = sums[f"accuracy_{name}"].tolist()
        for book, count in enumerate(frames):
            if count:
                values |= {f"{name}_{book}": entropies[book] / count, f"accuracy_{name}_{book}": correct[book] / count}
    return values
