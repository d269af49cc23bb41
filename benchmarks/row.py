"""One line of the table of results."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.timing import Pairs

Tell = Callable[[str], None]
"""Is told how far a measurement is."""


@dataclass(frozen=True)
class Row:
    """What was compared with what, and how it came out.

    Attributes:
        figure: what is compared with what.
        target: the ratio aimed at: at least so much, or at most where less is better.
        ratio: the median over rounds.
        spread: smallest and largest ratio of a round.
        ours: our median, with its unit.
        theirs: the comparator's.
        rounds: that were measured.
        at_most: whether less is better.
    """

    figure: str
    target: float
    ratio: float
    spread: tuple[float, float]
    ours: str
    theirs: str
    rounds: int
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is."""
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    @classmethod
    def of_speed(cls, figure: str, target: float, pairs: Pairs, show: Callable[[float], str]) -> Row:
        """Return the row of a paired comparison.

        Args:
            figure: what is compared with what.
            target: how many times faster ours is to be.
            pairs: the rounds.
            show: gives a median of seconds as a rate or a time with its unit.
        """
        ours, theirs = (show(statistics.median(side)) for side in (pairs.ours, pairs.theirs))
        return cls(figure, target, pairs.ratio, (min(pairs.ratios), max(pairs.ratios)), ours, theirs, len(pairs.ours))

    @classmethod
    def of_less(
        cls, figure: str, target: float, ours: list[float], theirs: list[float], show: Callable[[float], str]
    ) -> Row:
        """Return the row of a comparison in which less is better: ours, round by round, as a share of theirs."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        own, reference = (show(statistics.median(side)) for side in (ours, theirs))
        spread = min(ratios), max(ratios)
        return cls(figure, target, statistics.median(ratios), spread, own, reference, len(ours), at_most=True)


def per_second(unit: str) -> Callable[[float], str]:
    """Return what shows seconds per unit as units per second."""
    return lambda seconds: f"{1 / seconds:,.0f} {unit}/s"


def time_of(seconds: float) -> str:
    """Show seconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
