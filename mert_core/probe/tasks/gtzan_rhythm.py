"""Beats, by GTZAN-Rhythm's annotations: a probe per frame, then the tempo model.

The stand-in: beats of excerpts whose tempo is known from the score.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Kind, Task

TASK = Task(
    name="gtzan_rhythm",
    title="GTZAN rhythm",
    dataset="gtzan",
    question="rhythm",
    kind=Kind.BEATS,
    metrics=("f_measure", "f_measure_20ms"),
    pooling="frames",
)
