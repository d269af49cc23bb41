"""The fourteen tasks of MARBLE (arXiv 2306.10548) and their stand-ins; one file each. A new task is one more file."""

from __future__ import annotations

from dataclasses import replace

from mert_core.probe.tasks import (
    emo,
    gs_key,
    gtzan_genre,
    gtzan_rhythm,
    mtg_genre,
    mtg_instrument,
    mtg_mood,
    mtg_top50,
    mtt,
    musdb18,
    nsynth_instrument,
    nsynth_pitch,
    vocalset_singer,
    vocalset_technique,
)
from mert_core.probe.tasks.base import Chunking, Kind, Pooling, Task

__all__ = [
    "DEMO", "FLOORS", "FOURTEEN", "MEL_STATISTICS", "RANDOM_WEIGHTS", "TASKS", "Chunking", "Kind", "Pooling", "Task",
]  # fmt: skip

RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
FLOORS = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds."""

FOURTEEN: dict[str, Task] = {
    module.TASK.name: module.TASK
    for module in (
        mtt, gs_key, gtzan_genre, gtzan_rhythm, emo, nsynth_instrument, nsynth_pitch, vocalset_technique,
        vocalset_singer, mtg_instrument, mtg_mood, mtg_genre, mtg_top50, musdb18,
    )
}  # fmt: skip
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

TASKS: dict[str, Task] = FOURTEEN | DEMO
