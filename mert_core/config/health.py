"""What is watched during training, and what is done about each fault."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mert_core.config.section import Count, Positive, Section, Share, Whole

FaultAction = Literal["warn", "skip", "rollback", "stop"]
"""warn: say it · skip: leave the update out · rollback: to the last good state, at a lower rate · stop: end the run."""


class UpperBound(Section):
    """A measure that must not rise above a bound, judged before each update is made."""

    above: Positive
    action: FaultAction


class LowerBound(Section):
    """A measure of the model that must not fall below a bound; no single update is to blame, so none is skipped."""

    below: Positive
    action: Literal["warn", "rollback", "stop"]


class Explosion(UpperBound):
    """The loss over that of the first update."""

    above: Positive = 5.0
    action: FaultAction = "rollback"


class GradientSpike(UpperBound):
    """The gradient norm over the median of the last 100."""

    above: Positive = 10.0
    action: FaultAction = "warn"


class Perplexity(LowerBound):
    """Perplexity of the predictions over that of the teacher's codes, in the worst codebook."""

    below: Positive = 0.1
    action: Literal["warn", "rollback", "stop"] = "warn"


class DeadCodes(Section):
    """Largest share of a codebook's entries that the student may give up after warm-up."""

    above: Share = 0.5
    action: Literal["warn", "rollback", "stop"] = "warn"


class EffectiveRank(LowerBound):
    """Effective rank of the embeddings; 1 means that all are alike."""

    below: Positive = 4.0
    action: Literal["warn", "rollback", "stop"] = "warn"


class HealthConfig(Section):
    """What is watched during training, and what is done about each fault.

    Attributes:
        every: updates between measures of the model, one forward pass each; losses and gradients: every update.
        nonfinite: loss or gradient norm is NaN or infinite.
        silence: every clip of the global batch is silent.
        max_interventions: skips and rollbacks after which the run stops.
        rate_factor: factor on the learning rate after each rollback.
    """

    every: Count = 200
    nonfinite: Literal["skip", "rollback", "stop"] = "rollback"
    explosion: Explosion = Explosion()
    gradient_spike: GradientSpike = GradientSpike()
    silence: FaultAction = "warn"
    perplexity: Perplexity = Perplexity()
    dead_codes: DeadCodes = DeadCodes()
    effective_rank: EffectiveRank = EffectiveRank()
    max_interventions: Whole = 5
    rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
