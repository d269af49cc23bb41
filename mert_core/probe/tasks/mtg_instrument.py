"""Forty instrument tags, split 0; windows of 30 s over the track.

The stand-in: instrument families that sound in an excerpt.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="mtg_instrument",
    title="MTG-Jamendo instrument",
    dataset="mtg_jamendo",
    question="instrument",
    kind=Kind.MULTI,
    metrics=("roc_auc", "ap"),
    chunking=Chunking(seconds=30.0),
)
