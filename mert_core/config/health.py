"""The section that says what is watched during training, and what is done about each fault."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mert_core.config.section import Count, Positive, Section, Share

FaultAction = Literal["warn", "skip", "rollback", "stop"]


class UpperBound(Section):
    """A measure that must not rise above a bound, judged before each update is made."""

    above: Positive
    action: FaultAction


class LowerBound(Section):
    """A measure of the model that must not fall below a bound; no single update is to blame, so none is skipped."""

    below: Positive
    action: Literal["warn", "rollback", "stop"]


class DeadCodes(Section):
    """The largest share of a codebook's entries that the student may have given up."""

    above: Share
    action: Literal["warn", "rollback", "stop"]


class HealthConfig(Section):
    """What is watched during training, and what is done about each fault."""

    every: Count
    nonfinite: Literal["skip", "rollback", "stop"]
    explosion: UpperBound
    gradient_spike: UpperBound
    silence: FaultAction
    perplexity: LowerBound
    dead_codes: DeadCodes
    effective_rank: LowerBound
    max_interventions: Annotated[int, Field(ge=0)]
    rate_factor: Annotated[float, Field(gt=0, le=1)]
