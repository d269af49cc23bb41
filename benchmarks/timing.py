"""Paired, interleaved timing: each round measures both sides in turn, so that a slow minute hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Pairs:
    """Seconds per unit of work, one entry per round.

    Attributes:
        ours: of this repository.
        theirs: of the comparator.
    """

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, round by round."""
        return [other / own for own, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios)


def seconds(work: Work, times: int = 1) -> float:
    """Return the seconds that one call takes, over so many calls."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def paired(ours: Work, theirs: Work, rounds: int, tell: Callable[[str], None], times: int = 1) -> Pairs:
    """Measure both sides in turn; which one begins alternates. One more round before is not counted.

    Args:
        ours: one unit of our work.
        theirs: the same of the comparator.
        rounds: that count.
        tell: is told how far it is.
        times: how often ours is called within a round, where it takes too short to be timed once.
    """
    own, other = [], []
    for number in range(rounds + 1):
        if number % 2:
            second, first = seconds(theirs), seconds(ours, times)
        else:
            first, second = seconds(ours, times), seconds(theirs)
        if number:
            own.append(first)
            other.append(second)
        tell(f"round {number} of {rounds}{'' if number else ' (warm-up)'}: {second / first:.3g}×")
    return Pairs(own, other)
