"""The comparisons the report states in words: interval against interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mert_core.report.collect import Material, Scores


@dataclass(frozen=True)
class Verdict:
    """How one run stands against one floor.

    Attributes:
        run: the pre-trained run.
        floor: the floor.
        above: tasks where the run's whole interval lies above the floor's.
        below: tasks where it lies below.
        tasks: how many tasks were compared.
    """

    run: str
    floor: str
    above: list[str]
    below: list[str]
    tasks: int

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        counts = f"beats {self.floor.replace('-', ' ')} on {len(self.above)} of {self.tasks}"
        names = f" ({', '.join(self.above)})" if self.above else ""
        return counts + names + (f", falls below it on {', '.join(self.below)}" if self.below else "")


def beats(score: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether one 95 % interval lies wholly above another."""
    return bool(score["low"] > other["high"])


def verdicts(material: Material) -> list[Verdict]:
    """Return every run's standing against every floor."""
    found = []
    for scores in material.scores:
        if scores.is_floor:
            continue
        for floor in material.scores:
            if not floor.is_floor:
                continue
            above = [task for task in material.tasks if beats(scores.tasks[task], floor.tasks[task])]
            below = [task for task in material.tasks if beats(floor.tasks[task], scores.tasks[task])]
            found.append(Verdict(scores.run, floor.run, above, below, len(material.tasks)))
    return found


def unlike(scores: Sequence[Scores]) -> list[str]:
    """Return the runs that were probed by another protocol, or on another probe set, than the first one."""

    def terms(item: Scores) -> tuple[Any, Any]:
        return item.record.facts.get("protocol"), item.record.inputs.get("probe_set")

    return [item.run for item in scores if terms(item) != terms(scores[0])]
