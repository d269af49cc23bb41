"""Vocals, drums, bass and the rest, by signal-to-distortion ratio.

The stand-in: stems of performed scores, by role.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Chunking, Kind, Task

TASK = Task(
    name="musdb18",
    title="MUSDB18 separation",
    dataset="musdb18",
    question="stems",
    kind=Kind.STEMS,
    metrics=("sdr",),
    chunking=Chunking(seconds=6.0),
    pooling="frames",
)
