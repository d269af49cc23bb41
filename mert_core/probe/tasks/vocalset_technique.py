"""Ten vocal techniques, windows of 3 s without silence; test singers are unseen.

The stand-in: how a phrase is articulated; test phrases are of unseen performers.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="vocalset_technique",
    title="VocalSet technique",
    dataset="vocalset",
    question="technique",
    kind=Kind.SINGLE,
    metrics=("accuracy",),
    chunking=Chunking(seconds=3.0),
)
