"""The key of electronic dance music, by MIREX's weighted score; windows of 30 s.

The stand-in: the key of an excerpt, by MIREX's weighted score.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="gs_key",
    title="GiantSteps key",
    dataset="giantsteps",
    question="key",
    kind=Kind.SINGLE,
    metrics=("weighted_score",),
    chunking=Chunking(seconds=30.0),
)
