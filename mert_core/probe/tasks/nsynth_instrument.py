"""Eleven instrument families of single notes.

The stand-in: the instrument family of a single note.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Kind, Task

TASK = Task(
    name="nsynth_instrument",
    title="NSynth instrument",
    dataset="nsynth",
    question="instrument",
    kind=Kind.SINGLE,
    metrics=("accuracy",),
    max_epochs=50,
)
