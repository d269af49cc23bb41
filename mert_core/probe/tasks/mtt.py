"""MagnaTagATune's fifty commonest tags, 29 s clips as they are.

The stand-in: excerpts' sounding instruments, of some forty, as tags.
"""

from __future__ import annotations

from mert_core.probe.tasks.base import Kind, Task

TASK = Task(
    name="mtt",
    title="MagnaTagATune tagging",
    dataset="mtt",
    question="tags",
    kind=Kind.MULTI,
    metrics=("roc_auc", "ap"),
)
