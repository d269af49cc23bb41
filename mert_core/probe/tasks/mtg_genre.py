"""Eighty-seven genre tags, split 0; windows of 30 s over the track.

The stand-in: tags of period, function and texture.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="mtg_genre",
    title="MTG-Jamendo genre",
    dataset="mtg_jamendo",
    question="genre",
    kind=Kind.MULTI,
    metrics=("roc_auc", "ap"),
    chunking=Chunking(seconds=30.0),
)
