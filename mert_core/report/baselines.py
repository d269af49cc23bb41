"""How runs stand against the baselines: the statements in words that the report begins with, interval against interval.

A baseline is what was probed without pre-training: the same network untrained, and mel statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mert_core.report.load import ReportData, Scores
from mert_core.report.titles import DEMO_PREFIX, plain


@dataclass(frozen=True)
class Standing:
    """A run against a baseline at ``tasks``, all proxies or none: where its whole interval lies above, where below."""

    run: str
    baseline: str
    above: list[str]
    below: list[str]
    tasks: list[str]

    @property
    def sentence(self) -> str:
        """The standing in words, without the run's name."""
        kind = "proxy tasks" if self.tasks[0].startswith(DEMO_PREFIX) else "tasks"
        counts = f"beats {plain(self.baseline)} on {len(self.above)} of {len(self.tasks)} {kind}"
        names = f" ({', '.join(self.above)})" if self.above else ""
        return counts + names + (f", falls below it on {', '.join(self.below)}" if self.below else "")


def standings(data: ReportData) -> list[Standing]:
    """Return every run's standing against every baseline, at the proxy tasks and at the fourteen, where probed.

    Tasks at which the two cannot be compared do not count.
    """
    runs = [item for item in data.scored if not item.is_baseline]
    baselines = [item for item in data.scored if item.is_baseline]
    result = []
    for group in (data.proxy_tasks, data.fourteen):
        for run in runs:
            for baseline in baselines:
                tasks = [task for task in group if not not_comparable((run, baseline), task)]
                above = [task for task in tasks if beats(run.tasks[task], baseline.tasks[task])]
                below = [task for task in tasks if beats(baseline.tasks[task], run.tasks[task])]
                if tasks:
                    result.append(Standing(run.run, baseline.run, above, below, tasks))
    return result


def count_wins(data: ReportData) -> dict[str, dict[str, int]]:
    """Return on how many tasks, proxy tasks included, each run beats each baseline."""
    wins: dict[str, dict[str, int]] = {}
    for standing in standings(data):
        counts = wins.setdefault(standing.run, {})
        counts[standing.baseline] = counts.get(standing.baseline, 0) + len(standing.above)
    return wins


def beats(score: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether one 95 % interval lies wholly above another."""
    return bool(score["low"] > other["high"])


def not_comparable(scores: Sequence[Scores], task: str) -> list[str]:
    """Return the encoders whose score of a task cannot be compared with the others'.

    They were probed by another protocol or on other music than most encoders; where no conditions are more common, than
    the first one.
    """
    probed = {item.run: item.tasks[task] for item in scores if task in item.tasks}
    conditions = {run: (entry["protocol"], entry.get("test_set"), entry["tracks"]) for run, entry in probed.items()}
    usual = Counter(conditions.values()).most_common(1)
    return [run for run, own in conditions.items() if own != usual[0][0]]
