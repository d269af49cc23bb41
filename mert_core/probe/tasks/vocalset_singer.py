"""Which of twenty singers, windows of 3 s without silence.

The stand-in: which performer plays a phrase.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="vocalset_singer",
    title="VocalSet singer",
    dataset="vocalset",
    question="singer",
    kind=Kind.SINGLE,
    metrics=("accuracy",),
    chunking=Chunking(seconds=3.0),
)
