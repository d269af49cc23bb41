"""Measures of a run's health: is the gradient out of the ordinary, have predictions or embeddings collapsed?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
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
        effective_rank: effective rank of the embeddings, 1 (all alike) … width.
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
        figures = {"health/effective_rank": self.effective_rank}
        if self.perplexity:
            figures |= {
                "health/perplexity": statistics.fmean(self.perplexity),
                "health/perplexity_share": self.perplexity_share,
                "health/dead_codes": self.most_dead,
            }
        return figures | {f"health/perplexity_{book}": value for book, value in enumerate(self.perplexity)}


@torch.no_grad()
def model_health(objective: Objective, batch: Batch, codes: Mapping[str, Tensor], worker: Worker) -> ModelHealth | None:
    """Measure the model on a micro-batch of every worker; costs a forward pass over it, without dropout.

    The effective rank is RankMe's (arXiv 2210.02885): exp(entropy) of the singular values of the matrix of embeddings,
    here of the encoder's last state at all frames. All workers must call this together.

    Args:
        objective: student and heads.
        batch: at most ``MEASURED_CLIPS`` clips; more would only cost more.
        codes: the batch's codes (batch, frames, codebooks) by teacher.
        worker: rank and device of this process.

    Returns:
        The figures, the same on every worker; None when the weights are so broken that there are none.
    """
    was_training = objective.training
    objective.eval()
    states, logits = objective.masked_codes(batch.noisy, batch.mask)
    objective.train(was_training)
    flat = states.flatten(0, 1).double()
    gram = worker.sum(flat.T @ flat)
    own, teachers, dead = [], [], []
    finite = bool(gram.isfinite().all())
    for name, per_book in logits.items():
        predicted, used = _frequencies(per_book, codes[name][batch.mask].T)
        predicted, used = worker.sum(predicted), worker.sum(used)
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
        rate_factor: factor of the learning rate, lowered by each rollback.
        standing: faults that were told and have not gone since; they are not told again.
        norms: norms of the last gradients.
    """

    interventions: int = 0
    rate_factor: float = 1.0
    standing: set[str] = field(default_factory=set)
    norms: GradientNorms = field(default_factory=GradientNorms)


@dataclass(frozen=True)
class Action:
    """What to do now.

    Attributes:
        name: one of ``SEVERITY``.
        faults: names of the faults present, for the tracker.
        text: for a person; empty when there is nothing new to say.
    """

    name: str
    faults: tuple[str, ...] = ()
    text: str = ""

    @property
    def makes_update(self) -> bool:
        """Whether the optimizer takes its step."""
        return self.name in {"go on", "warn"}

    @property
    def sets_back(self) -> bool:
        """Whether the run cannot go on from where it is."""
        return self.name in {"rollback", "stop"}


class HealthPolicy:
    """Judges measures by the bounds of ``pretrain.health``. Equal measures give equal actions on every worker.

    Args:
        health: bounds of all measures, and the action on each fault.
        state: memory of earlier judgments; replaced when training is set back.
    """

    def __init__(self, health: HealthConfig, state: HealthState) -> None:
        self._health, self.state = health, state

    def judge_update(
        self, step: int, loss: float, first_loss: float | None, norm: float, sounding_clips: float
    ) -> Action:
        """Judge an update before it is made.

        Args:
            step: number of the update.
            loss: loss per masked frame.
            first_loss: loss of the first update, or None if this is the first.
            norm: norm of the whole gradient before clipping.
            sounding_clips: number of clips of the global batch that are not silent.
        """
        health = self._health
        faults: dict[str, tuple[str, str]] = {}
        if not (math.isfinite(loss) and math.isfinite(norm)):
            faults["nonfinite"] = health.nonfinite, f"the loss is {loss:.4g} and the gradient norm {norm:.4g}"
        elif first_loss is not None and loss > health.explosion.above * first_loss:
            bound = f"{health.explosion.above:g} times the first one ({first_loss:.4g})"
            faults["explosion"] = health.explosion.action, f"the loss is {loss:.4g}, above {bound}"
        ratio = self.state.norms.ratio(norm)
        if "nonfinite" not in faults and ratio is not None and ratio > health.gradient_spike.above:
            faults["gradient_spike"] = (
                health.gradient_spike.action,
                f"the gradient norm is {norm:.4g}, {ratio:.3g} times the median of the last ones",
            )
        if sounding_clips == 0:
            faults["silence"] = health.silence, "every clip of the batch is silent"
        action = self._action(step, faults, {"nonfinite", "explosion", "gradient_spike", "silence"})
        if action.makes_update:
            self.state.norms.add(norm)
        return action

    def judge_model(self, step: int, measured: ModelHealth | None) -> Action:
        """Judge the model as it stands after update ``step``."""
        health = self._health
        faults: dict[str, tuple[str, str]] = {}
        if measured is None:
            action = "rollback" if health.nonfinite == "skip" else health.nonfinite
            faults["broken"] = action, "embeddings or predictions are not finite"
        else:
            if measured.perplexity_share < health.perplexity.below:
                share = f"{measured.perplexity_share:.3g} of the teacher's"
                faults["perplexity"] = health.perplexity.action, f"the predictions' perplexity has fallen to {share}"
            if measured.most_dead > health.dead_codes.above:
                dead = f"{measured.most_dead:.0%} of a codebook's entries"
                faults["dead_codes"] = health.dead_codes.action, f"the student has given up {dead}"
            if measured.effective_rank < health.effective_rank.below:
                rank = f"{measured.effective_rank:.3g}"
                faults["effective_rank"] = health.effective_rank.action, f"the embeddings' effective rank is {rank}"
        return self._action(step, faults, {"broken", "perplexity", "dead_codes", "effective_rank"})

    def _action(self, step: int, faults: dict[str, tuple[str, str]], judged: set[str]) -> Action:
        """Return the severest action of the faults, and remember which of those judged stand.

        Args:
            step: number of the update.
            faults: action and description by name.
            judged: names of all faults that were looked for.
        """
        state = self.state
        name = max((action for action, _ in faults.values()), key=SEVERITY.index, default="go on")
        is_new = bool(faults.keys() - state.standing)
        state.standing = (state.standing - judged) | set(faults)
        text = "; ".join(description for _, description in faults.values())
        if SEVERITY.index(name) >= SEVERITY.index("skip"):
            if name != "stop" and state.interventions >= self._health.max_interventions:
                text += f" (after {state.interventions} interventions, the most that pretrain.health allows)"
                name = "stop"
            state.interventions += name != "stop"
        elif not is_new:
            text = ""
        return Action(name, tuple(sorted(faults)), f"update {step}: {text}" if text else "")
