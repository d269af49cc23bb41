"""The MIDI pitch of single notes.

The stand-in: the MIDI pitch of a single note.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Kind, Task

TASK = Task(
    name="nsynth_pitch",
    title="NSynth pitch",
    dataset="nsynth",
    question="pitch",
    kind=Kind.SINGLE,
    metrics=("accuracy",),
    max_epochs=50,
)
