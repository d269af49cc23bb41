"""Measures of a run's health: is the gradient out of the ordinary, have predictions or embeddings collapsed?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mert_core.training.loss import Objective
from mert_core.training.targets import Batch
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


@dataclass(frozen=True)
class ModelHealth:
    """How the predictions and the embeddings of one global micro-batch stand.

    Attributes:
        perplexity: per codebook, exp(entropy) of the mean predicted distribution: how many codes the student considers.
        perplexity_share: the student's perplexity over that of the teacher's codes, in the worst codebook; 1 if no
            teacher gives codes.
        dead_codes: share of the codes that the teacher uses here and the student has given up, in the worst codebook.
        effective_rank: effective rank of the embeddings, 1 (all alike) … width.
    """

    perplexity: list[float]
    perplexity_share: float
    dead_codes: float
    effective_rank: float

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        figures = {"health/effective_rank": self.effective_rank}
        if self.perplexity:
            figures |= {
                "health/perplexity": statistics.fmean(self.perplexity),
                "health/perplexity_share": self.perplexity_share,
                "health/dead_codes": self.dead_codes,
            }
        return figures | {f"health/perplexity_{book}": value for book, value in enumerate(self.perplexity)}


@torch.no_grad()
def model_health(objective: Objective, batch: Batch, codes: Mapping[str, Tensor], worker: Worker) -> ModelHealth | None:
    """Measure the model on a micro-batch of every worker; costs a forward pass over it, without dropout.

    The effective rank is RankMe's (arXiv 2210.02885): exp(entropy) of the singular values of the matrix of embeddings,
    here of the encoder's last state at all frames. All workers must call this together.

    Args:
        objective: student and heads.
        batch: micro-batch, whose first ``MEASURED_CLIPS`` clips are measured; more would only cost more.
        codes: the batch's codes (batch, frames, codebooks) by teacher.
        worker: rank and device of this process.

    Returns:
        The figures, the same on every worker; None when the weights are so broken that there are none.
    """
    was_training = objective.training
    objective.eval()
    mask = batch.mask[:MEASURED_CLIPS]
    states, logits = objective.masked_codes(batch.noisy[:MEASURED_CLIPS], mask)
    objective.train(was_training)
    flat = states.flatten(0, 1).double()
    gram = worker.sum(flat.T @ flat)
    finite = bool(gram.isfinite().all())
    own: list[float] = []
    shares: list[float] = []
    dead: list[float] = []
    for name, per_book in logits.items():
        # How often each code is predicted and given, both float64 (codebooks, entries).
        given = codes[name][:MEASURED_CLIPS][mask].T
        predicted = torch.zeros(per_book.shape[0], per_book.shape[2], dtype=torch.float64, device=per_book.device)
        for book in range(len(per_book)):  # one at a time: all probabilities at once would be the step's largest tensor
            predicted[book] = per_book[book].float().softmax(-1).double().sum(0)
        used = torch.zeros_like(predicted).scatter_add_(1, given, torch.ones_like(given, dtype=torch.float64))
        predicted, used = worker.sum(predicted), worker.sum(used)
        finite = finite and bool(predicted.isfinite().all())
        predicted = predicted / predicted.sum(1, keepdim=True)
        used = used / used.sum(1, keepdim=True)
        given_up = (predicted < DEAD_SHARE / predicted.shape[1]) & (used > 0)
        dead += (given_up.sum(1) / (used > 0).sum(1)).tolist()
        perplexity = _entropy(predicted).exp()
        own += perplexity.tolist()
        shares += (perplexity / _entropy(used).exp()).tolist()
    if not finite:
        return None
    singular = torch.linalg.eigvalsh(gram.cpu()).clamp(min=0).sqrt()
    rank = math.exp(_entropy(singular / singular.sum().clamp(min=1e-30)).item())
    return ModelHealth(own, min(shares, default=1.0), max(dead, default=0.0), rank)


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy in nats over the last axis."""
    return torch.special.entr(shares).sum(-1)


SEVERITY = ("go on", "warn", "skip", "rollback", "stop")


@dataclass
class HealthState:
    """What the policy remembers; part of every resume state, so that a resumed run decides as an uninterrupted one.

    Attributes:
        interventions: updates skipped and rollbacks made so far.
        rate_factor: factor of the learning rate, lowered by each rollback.
        standing: faults that were told and have not gone since, sorted; they are not told again.
        norms: gradient norms of the last updates that were made, before clipping.
    """

    interventions: int = 0
    rate_factor: float = 1.0
    standing: list[str] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


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


Fault = tuple[str, str]
"""The action that ``pretrain.health`` has chosen, and what is wrong, for a person."""


def judge_update(
    health: HealthConfig,
    state: HealthState,
    step: int,
    loss: float,
    first_loss: float | None,
    norm: float,
    sounding_clips: float,
) -> Action:
    """Judge an update before it is made. Equal measures give equal actions on every worker.

    Args:
        health: bounds of all measures, and the action on each fault.
        state: memory of earlier judgments, which is updated.
        step: number of the update.
        loss: loss per masked frame.
        first_loss: that of the first update, or None if this is the first.
        norm: norm of the whole gradient before clipping.
        sounding_clips: number of clips of the global batch that are not silent.
    """
    faults: dict[str, Fault] = {}
    if not (math.isfinite(loss) and math.isfinite(norm)):
        faults["nonfinite"] = health.nonfinite, f"the loss is {loss:.4g} and the gradient norm {norm:.4g}"
    else:
        if first_loss is not None and loss > health.explosion.above * first_loss:
            bound = f"{health.explosion.above:g} times the first one ({first_loss:.4g})"
            faults["explosion"] = health.explosion.action, f"the loss is {loss:.4g}, above {bound}"
        if len(state.norms) >= LEAST_NORMS:
            ratio = norm / max(statistics.median(state.norms), 1e-12)
            if ratio > health.gradient_spike.above:
                said = f"the gradient norm is {norm:.4g}, {ratio:.3g} times the median of the last ones"
                faults["gradient_spike"] = health.gradient_spike.action, said
    if sounding_clips == 0:
        faults["silence"] = health.silence, "every clip of the batch is silent"
    action = _decide(health, state, step, faults, {"nonfinite", "explosion", "gradient_spike", "silence"})
    if action.makes_update:
        state.norms = [*state.norms, norm][-REMEMBERED_NORMS:]
    return action


def judge_model(health: HealthConfig, state: HealthState, step: int, measured: ModelHealth | None) -> Action:
    """Judge the model as it stands after update ``step``, with the arguments of `judge_update`."""
    faults: dict[str, Fault] = {}
    if measured is None:
        action = "rollback" if health.nonfinite == "skip" else health.nonfinite
        faults["broken"] = action, "embeddings or predictions are not finite"
    else:
        if measured.perplexity_share < health.perplexity.below:
            share = f"{measured.perplexity_share:.3g} of the teacher's"
            faults["perplexity"] = health.perplexity.action, f"the predictions' perplexity has fallen to {share}"
        if measured.dead_codes > health.dead_codes.above:
            dead = f"{measured.dead_codes:.0%} of a codebook's entries"
            faults["dead_codes"] = health.dead_codes.action, f"the student has given up {dead}"
        if measured.effective_rank < health.effective_rank.below:
            rank = f"{measured.effective_rank:.3g}"
            faults["effective_rank"] = health.effective_rank.action, f"the embeddings' effective rank is {rank}"
    return _decide(health, state, step, faults, {"broken", "perplexity", "dead_codes", "effective_rank"})


def _decide(health: HealthConfig, state: HealthState, step: int, faults: dict[str, Fault], judged: set[str]) -> Action:
    """Return the severest action of the faults, and remember which of those looked for (``judged``) stand."""
    name = max((action for action, _ in faults.values()), key=SEVERITY.index, default="go on")
    is_new = not faults.keys() <= set(state.standing)
    state.standing = sorted((set(state.standing) - judged) | faults.keys())
    text = "; ".join(description for _, description in faults.values())
    if SEVERITY.index(name) >= SEVERITY.index("skip"):
        if name != "stop" and state.interventions >= health.max_interventions:
            text += f" (after {state.interventions} interventions, the most that pretrain.health allows)"
            name = "stop"
        state.interventions += name != "stop"
    elif not is_new:
        text = ""
    return Action(name, tuple(sorted(faults)), f"update {step}: {text}" if text else "")
