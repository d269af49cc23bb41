"""The fourteen tasks of MARBLE (arXiv 2306.10548) and their stand-ins; one file each. A new task is one more file."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from mert_core.probe.tasks.base import Chunking, Kind, Pooling, Task

__all__ = [
    "DEMO", "FLOORS", "FOURTEEN", "MEL_STATISTICS", "RANDOM_WEIGHTS", "TASKS", "Chunking", "Kind", "Pooling", "Task",
]  # fmt: skip

RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
FLOORS = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds."""

_MARBLE = (
    "mtt", "gs_key", "gtzan_genre", "gtzan_rhythm", "emo", "nsynth_instrument", "nsynth_pitch", "vocalset_technique",
    "vocalset_singer", "mtg_instrument", "mtg_mood", "mtg_genre", "mtg_top50", "musdb18",
)  # fmt: skip


def _declared() -> dict[str, Task]:
    """Return the ``TASK`` of every module of this folder, by name."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__) if found.name != "base")
    return {module.TASK.name: module.TASK for module in modules}


_ALL = _declared()
FOURTEEN: dict[str, Task] = {name: _ALL[name] for name in _MARBLE}
"""The tasks with published figures, in MARBLE's order."""

DEMO: dict[str, Task] = {
    f"demo/{name}": replace(
        task, name=f"demo/{name}", title=f"{task.title} (stand-in)", dataset="demo", question=name,
        chunking=Chunking() if task.pooling == "mean" else task.chunking,
    )
    for name, task in FOURTEEN.items()
}  # fmt: skip
"""The same questions of performed scores: the demo's data set has one question per task, and
short clips that are embedded whole, once for all tasks that ask of them."""

TASKS: dict[str, Task] = FOURTEEN | _ALL | DEMO
