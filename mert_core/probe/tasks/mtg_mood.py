"""Fifty-six mood and theme tags, split 0; windows of 30 s over the track.

The stand-in: tags of mood that follow from the score: mode, tempo, density, loudness.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="mtg_mood",
    title="MTG-Jamendo mood/theme",
    dataset="mtg_jamendo",
    question="moodtheme",
    kind=Kind.MULTI,
    metrics=("roc_auc", "ap"),
    chunking=Chunking(seconds=30.0),
)
