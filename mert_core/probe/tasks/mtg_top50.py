"""The fifty commonest tags, split 0; windows of 30 s over the track.

The stand-in: the commonest tags of all the kinds above.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="mtg_top50",
    title="MTG-Jamendo top 50",
    dataset="mtg_jamendo",
    question="top50tags",
    kind=Kind.MULTI,
    metrics=("roc_auc", "ap"),
    chunking=Chunking(seconds=30.0),
)
