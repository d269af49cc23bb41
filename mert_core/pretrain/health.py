"""Measures of a run's health: is the gradient out of the ordinary, have predictions or embeddings collapsed?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mert_core.pretrain.batch import Batch
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
        """The student's perplexity over the teacher's, in the worst codebook; 1 if no teacher gives codes."""
        pairs = zip(self.perplexity, self.teacher_perplexity, strict=True)
        return min((own / other for own, other in pairs), default=1.0)

    @property
    def most_dead(self) -> float:
        """The share of dead codes in the worst codebook."""
        return max(self.dead_codes, default=0.0)

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        found = {"health/effective_rank": self.effective_rank}
        if self.perplexity:
            found |= {
                "health/perplexity": statistics.fmean(self.perplexity),
                "health/perplexity_share": self.perplexity_share,
                "health/dead_codes": self.most_dead,
            }
        return found | {f"health/perplexity_{book}": value for book, value in enumerate(self.perplexity)}


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
    batch = batch.first(MEASURED_CLIPS)
    truth = objective.teaching.targets(batch, objective.teaching.codes)
    states, logits = objective.masked_codes(batch.noisy, batch.mask)
    objective.train(was_training)
    flat = states.flatten(0, 1).double()
    gram = place.sum(flat.T @ flat)
    own, teachers, dead = [], [], []
    finite = bool(gram.isfinite().all())
    for name, per_book in logits.items():
        predicted, used = _frequencies(per_book, truth[name][batch.mask].T)
        predicted, used = place.sum(predicted), place.sum(used)
        finite = finite and bool(predicted.isfinite().all())
        predicted = predicted / predicted.sum(1, keepdim=True)
        used = used / used.sum(1, keepdim=True)
        given_up = (predicted < DEAD_SHARE / predicted.shape[1]) & (used > 0)
        dead += (given_up.sum(1) / (used > 0).sum(1)).tolist()
        own += _entropy(predicted).exp().tolist()
        teachers += _entropy(used).exp().tolist()
    if not finite:
        return None
    singular = torch.linalg.eigvalsh(gram.cpu()).clamp(min=0).sqrt()
    rank = math.exp(_entropy(singular / singular.sum().clamp(min=1e-30)).item())
    return Vitals(own, teachers, dead, rank)


def _frequencies(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return how often each code is predicted and given, both float64 (codebooks, entries).

    Args:
        logits: (codebooks, positions, entries).
        codes: (codebooks, positions).
    """
    predicted = torch.zeros(logits.shape[0], logits.shape[2], dtype=torch.float64, device=logits.device)
    for book in range(len(logits)):  # one at a time: all probabilities at once would be the step's largest tensor
        predicted[book] = logits[book].float().softmax(-1).double().sum(0)
    used = torch.zeros_like(predicted).scatter_add_(1, codes, torch.ones_like(codes, dtype=torch.float64))
    return predicted, used


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy in nats over the last axis."""
    return torch.special.entr(shares).sum(-1)


def are_finite(weights: Iterable[Tensor]) -> bool:
    """Return whether none holds a NaN or an infinity."""
    return all(bool(weight.isfinite().all()) for weight in weights)
