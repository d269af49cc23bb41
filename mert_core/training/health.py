"""Measures of a run's health: is the gradient out of the ordinary, have predictions or embeddings collapsed?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mert_core.training.batch import Batch
from mert_core.training.loss import Objective
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import HealthConfig


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
class ModelHealth:
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
def vitals(objective: Objective, batch: Batch, place: Worker) -> ModelHealth | None:
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
    return ModelHealth(own, teachers, dead, rank)


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


SEVERITY = ("go on", "warn", "skip", "rollback", "stop")


@dataclass
class HealthState:
    """What the policy remembers; part of every resume state, so that a resumed run decides as an uninterrupted one.

    Attributes:
        interventions: updates skipped and rollbacks made so far.
        rate_factor: of the learning rate, lowered by each rollback.
        standing: faults that were told and have not gone since; they are not told again.
        norms: of the last gradients.
    """

    interventions: int = 0
    rate_factor: float = 1.0
    standing: set[str] = field(default_factory=set)
    norms: GradientNorms = field(default_factory=GradientNorms)


@dataclass(frozen=True)
class Action:
    """What to do now.

    Attributes:
        action: one of ``SEVERITY``.
        faults: names of the faults present, for the tracker.
        text: for a person; empty when there is nothing new to say.
    """

    action: str
    faults: tuple[str, ...] = ()
    text: str = ""

    @property
    def makes_update(self) -> bool:
        """Whether the optimiser takes its step."""
        return self.action in {"go on", "warn"}

    @property
    def sets_back(self) -> bool:
        """Whether the run cannot go on from where it is."""
        return self.action in {"rollback", "stop"}


class HealthPolicy:
    """Judges measures by the bounds of ``pretrain.health``. Equal measures give equal verdicts on every worker.

    Args:
        health: bounds and actions.
        guard: what is remembered; replaced when training is set back.
    """

    def __init__(self, health: HealthConfig, guard: HealthState) -> None:
        self._health, self.guard = health, guard

    def judge_update(
        self, step: int, loss: float, first_loss: float | None, norm: float, sounding_clips: float
    ) -> Action:
        """Judge an update before it is made.

        Args:
            step: number of the update.
            loss: per masked frame.
            first_loss: loss of the first update, or None if this is the first.
            norm: of the gradient, before clipping.
            sounding_clips: clips of the global batch that are not silent.
        """
        health = self._health
        found: dict[str, tuple[str, str]] = {}
        if not (math.isfinite(loss) and math.isfinite(norm)):
            found["nonfinite"] = health.nonfinite, f"the loss is {loss:.4g} and the gradient norm {norm:.4g}"
        elif first_loss is not None and loss > health.explosion.above * first_loss:
            bound = f"{health.explosion.above:g} times the first one ({first_loss:.4g})"
            found["explosion"] = health.explosion.action, f"the loss is {loss:.4g}, above {bound}"
        ratio = self.guard.norms.ratio(norm)
        if "nonfinite" not in found and ratio is not None and ratio > health.gradient_spike.above:
            found["gradient_spike"] = (
                health.gradient_spike.action,
                f"the gradient norm is {norm:.4g}, {ratio:.3g} times the median of the last ones",
            )
        if sounding_clips == 0:
            found["silence"] = health.silence, "every clip of the batch is silent"
        verdict = self._verdict(step, found, {"nonfinite", "explosion", "gradient_spike", "silence"})
        if verdict.makes_update:
            self.guard.norms.add(norm)
        return verdict

    def judge_model(self, step: int, vitals: ModelHealth | None) -> Action:
        """Judge the model as it stands after update ``step``."""
        health = self._health
        found: dict[str, tuple[str, str]] = {}
        if vitals is None:
            action = "rollback" if health.nonfinite == "skip" else health.nonfinite
            found["broken"] = action, "embeddings or predictions are not finite"
        else:
            if vitals.perplexity_share < health.perplexity.below:
                share = f"{vitals.perplexity_share:.3g} of the teacher's"
                found["perplexity"] = health.perplexity.action, f"the predictions' perplexity has fallen to {share}"
            if vitals.most_dead > health.dead_codes.above:
                dead = f"{vitals.most_dead:.0%} of a codebook's entries"
                found["dead_codes"] = health.dead_codes.action, f"the student has given up {dead}"
            if vitals.effective_rank < health.effective_rank.below:
                rank = f"{vitals.effective_rank:.3g}"
                found["effective_rank"] = health.effective_rank.action, f"the embeddings' effective rank is {rank}"
        return self._verdict(step, found, {"broken", "perplexity", "dead_codes", "effective_rank"})

    def _verdict(self, step: int, found: dict[str, tuple[str, str]], judged: set[str]) -> Action:
        guard = self.guard
        action = max((action for action, _ in found.values()), key=SEVERITY.index, default="go on")
        news = set(found) - guard.standing
        guard.standing = (guard.standing - judged) | set(found)
        said = "; ".join(what for _, what in found.values())
        if SEVERITY.index(action) >= SEVERITY.index("skip"):
            if action != "stop" and guard.interventions >= self._health.max_interventions:
                said += f" (after {guard.interventions} interventions, the most that pretrain.health allows)"
                action = "stop"
            guard.interventions += action != "stop"
        elif not news:
            said = ""
        return Action(action, tuple(sorted(found)), f"update {step}: {said}" if said else "")
