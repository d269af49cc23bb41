"""What is done about a fault in training: warn, skip the update, roll back to the last good state, or stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mert_core.pretrain.health import GradientNorms, Vitals

if TYPE_CHECKING:
    from mert_core.config import Health

SEVERITY = ("go on", "warn", "skip", "rollback", "stop")


@dataclass
class Guard:
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
class Verdict:
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


class Policy:
    """Judges measures by the bounds of ``pretrain.health``. Equal measures give equal verdicts on every worker.

    Args:
        health: bounds and actions.
        guard: what is remembered; replaced when training is set back.
    """

    def __init__(self, health: Health, guard: Guard) -> None:
        self._health, self.guard = health, guard

    def judge_update(
        self, step: int, loss: float, first_loss: float | None, norm: float, sounding_clips: float
    ) -> Verdict:
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

    def judge_model(self, step: int, vitals: Vitals | None) -> Verdict:
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

    def _verdict(self, step: int, found: dict[str, tuple[str, str]], judged: set[str]) -> Verdict:
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
        return Verdict(action, tuple(sorted(found)), f"update {step}: {said}" if said else "")
