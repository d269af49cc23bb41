"""Measures of a run's health: is the gradient out of the ordinary, have predictions or embeddings collapsed?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mert_core.pretrain.data import Batch
from mert_core.pretrain.objective import Objective
from mert_core.pretrain.place import Place

REMEMBERED_NORMS = 100
LEAST_NORMS = 20
"""Norms that a median needs before a further one can be called a spike."""
MEASURED_CLIPS = 16
"""Clips of each worker's micro-batch that are measured at most."""
DEAD_SHARE = 0.01
"""A code is dead when the student gives it, on average, less than this share of an even 1 / entries."""


@dataclass
class GradientNorms:
    """The norms of the last updates that were made, before clipping."""

    recent: list[float] = field(default_factory=list)

    def ratio(self, norm: float) -> float | None:
        """Return a norm over the median of the recent ones, or None while they are too few."""
        if len(self.recent) < LEAST_NORMS:
            return None
        return norm / max(statistics.median(self.recent), 1e-12)

    def add(self, norm: float) -> None:
        """Remember a norm and forget the oldest."""
        self.recent.append(norm)
        del self.recent[:-REMEMBERED_NORMS]


@dataclass(frozen=True)
class Vitals:
    """How the predictions and the embeddings of one global micro-batch stand.

    Attributes:
        perplexity: per codebook, exp(entropy) of the mean predicted distribution: how many codes the student considers.
        teacher_perplexity: per codebook, the same of the teacher's codes.
        dead_codes: per codebook, share of the codes that the teacher uses here and the student has given up.
        effective_rank: of the embeddings, 1 (all alike) … width.
    """

    perplexity: list[float]
    teacher_perplexity: list[float]
    dead_codes: list[float]
    effective_rank: float

    @property
    def perplexity_share(self) -> float:
        """The student's perplexity over the teacher's, in the worst codebook."""
        return min(own / other for own, other in zip(self.perplexity, self.teacher_perplexity, strict=True))

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "health/perplexity": statistics.fmean(self.perplexity),
            "health/perplexity_share": self.perplexity_share,
            "health/dead_codes": max(self.dead_codes),
            "health/effective_rank": self.effective_rank,
        } | {f"health/perplexity_{book}": value for book, value in enumerate(self.perplexity)}


@torch.no_grad()
def vitals(objective: Objective, batch: Batch, place: Place) -> Vitals | None:
    """Measure on one micro-batch of every worker; costs a forward pass over at most 16 clips, without dropout.

    The effective rank is RankMe's (arXiv 2210.02885): exp(entropy) of the singular values of the matrix of embeddings,
    here of the encoder's last state at all frames. All workers must call this together.

    Returns:
        The figures, the same on every worker; None when the weights are so broken that there are none.
    """
    was_training = objective.training
    objective.eval()
    noisy, codes, mask = (part[:MEASURED_CLIPS] for part in (batch.noisy, batch.codes, batch.mask))
    states, logits = objective.masked_codes(noisy, mask)
    objective.train(was_training)
    codebooks, entries = logits.shape[0], logits.shape[2]
    predicted = torch.zeros(codebooks, entries, dtype=torch.float64, device=states.device)
    for book in range(codebooks):  # one at a time: all probabilities at once would be the step's largest tensor
        predicted[book] = logits[book].float().softmax(-1).double().sum(0)
    codes = codes[mask].T
    used = torch.zeros_like(predicted).scatter_add_(1, codes, torch.ones_like(codes, dtype=torch.float64))
    flat = states.flatten(0, 1).double()
    gram = flat.T @ flat
    for part in (predicted, used, gram):
        place.sum(part)
    if not (predicted.isfinite().all() and gram.isfinite().all()):
        return None
    predicted /= predicted.sum(1, keepdim=True)
    used /= used.sum(1, keepdim=True)
    dead = ((predicted < DEAD_SHARE / entries) & (used > 0)).sum(1) / (used > 0).sum(1)
    singular = torch.linalg.eigvalsh(gram.cpu()).clamp(min=0).sqrt()
    rank = math.exp(_entropy(singular / singular.sum().clamp(min=1e-30)).item())
    return Vitals(_entropy(predicted).exp().tolist(), _entropy(used).exp().tolist(), dead.tolist(), rank)


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy in nats over the last axis."""
    return torch.special.entr(shares).sum(-1)


def are_finite(weights: Iterable[Tensor]) -> bool:
    """Return whether none holds a NaN or an infinity."""
    return all(bool(weight.isfinite().all()) for weight in weights)
