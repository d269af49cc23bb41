"""What a judge says of one task."""

from __future__ import annotations

from dataclasses import dataclass

from mert_core.probe.answers import Answers


@dataclass(frozen=True)
class Figure:
    """A score with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """One task's outcome for one encoder.

    Attributes:
        metric: what was selected by.
        summary: that metric on the test split; of several figures (``r2``, ``sdr``) their mean.
        metrics: every figure of the tables by name.
        tracks: of the test split.
        classes: outputs of a probe.
        input: hidden state, or ``weighted``.
        rate: learning rate.
        validation: score by which input and rate were chosen, mean over seeds.
        per_seed: the metric on the test split for each seed.
        by_input: every input's validation score at its best rate.
        answers: to every test track, for paired comparisons.
    """

    metric: str
    summary: Figure
    metrics: dict[str, Figure]
    tracks: int
    classes: int
    input: int | str
    rate: float
    validation: float
    per_seed: list[float]
    by_input: list[tuple[int | str, float]]
    answers: Answers
