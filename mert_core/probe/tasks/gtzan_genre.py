"""Ten genres on GTZAN's fault-filtered division.

The stand-in: which of eight composers or traditions an excerpt is from.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="gtzan_genre",
    title="GTZAN genre",
    dataset="gtzan",
    question="genre",
    kind=Kind.SINGLE,
    metrics=("accuracy",),
    chunking=Chunking(seconds=30.0),
)
