"""The comparisons the report states in words: interval against interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mert_core.report.load import ReportData, Scores
from mert_core.report.titles import DEMO_PREFIX


@dataclass(frozen=True)
class Standing:
    """How one run stands against one floor.

    Attributes:
        run: the pre-trained run.
        floor: the floor.
        above: tasks where the run's whole interval lies above the floor's.
        below: tasks where it lies below.
        tasks: the tasks compared: all of them stand-ins, or none.
    """

    run: str
    floor: str
    above: list[str]
    below: list[str]
    tasks: list[str]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        kind = "stand-ins" if self.tasks[0].startswith(DEMO_PREFIX) else "tasks"
        counts = f"beats {self.floor.replace('-', ' ')} on {len(self.above)} of {len(self.tasks)} {kind}"
        names = f" ({', '.join(self.above)})" if self.above else ""
        return counts + names + (f", falls below it on {', '.join(self.below)}" if self.below else "")


def beats(score: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether one 95 % interval lies wholly above another."""
    return bool(score["low"] > other["high"])


def verdicts(material: ReportData) -> list[Standing]:
    """Return every run's standing against every floor: at the stand-ins, and at those of the fourteen that were had.

    Tasks at which the two cannot be compared do not count.
    """
    floors = [item for item in material.scores if item.is_floor]
    found = []
    for asked in (material.stand_ins, material.fourteen):
        for run in (item for item in material.scores if not item.is_floor):
            for floor in floors:
                tasks = [task for task in asked if not unlike((run, floor), task)]
                above = [task for task in tasks if beats(run.tasks[task], floor.tasks[task])]
                below = [task for task in tasks if beats(floor.tasks[task], run.tasks[task])]
                if tasks:
                    found.append(Standing(run.run, floor.run, above, below, tasks))
    return found


def beaten(material: ReportData) -> dict[str, dict[str, int]]:
    """Return on how many tasks, stand-ins included, each run beats each floor."""
    found: dict[str, dict[str, int]] = {}
    for verdict in verdicts(material):
        counts = found.setdefault(verdict.run, {})
        counts[verdict.floor] = counts.get(verdict.floor, 0) + len(verdict.above)
    return found


def unlike(scores: Sequence[Scores], task: str) -> list[str]:
    """Return the encoders whose score of a task cannot be compared with the others'.

    They were probed by another protocol or on other music than most encoders; where no terms are more common, than
    the first one.
    """
    terms = {item.run: _terms(item, task) for item in scores if task in item.tasks}
    if not terms:
        return []
    usual = Counter(terms.values()).most_common(1)[0][0]
    return [run for run, found in terms.items() if found != usual]


def _terms(item: Scores, task: str) -> tuple[Any, ...]:
    score = item.tasks[task]
    return score["protocol"], score.get("test_set"), score["tracks"]
