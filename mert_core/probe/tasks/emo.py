"""Valence and arousal, first 30 s in windows of 5 s.

The stand-in: two continuous descriptors of an excerpt: how dense its notes are, and how high.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="emo",
    title="EMO emotion",
    dataset="emo",
    question="emotion",
    kind=Kind.REGRESSION,
    metrics=("r2",),
    chunking=Chunking(seconds=5.0, limit_seconds=30.0),
)
