"""What is probed: one small declaration per task. A new task is one more entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probe.metrics import KEYS

RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
FLOORS = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds."""


@dataclass(frozen=True)
class ProbeTask:
    """A classification of whole items.

    Attributes:
        items: the kind of items of the probe set it is asked of: ``mix`` (excerpts) or ``note`` (single notes).
        label: the column of ``labels.parquet`` that holds the answer; -1 and the empty string mean unknown.
        metric: a name in `mert_core.probe.metrics.METRICS`.
        classes: the names of the classes where the column holds their indices; None where the training split's
            values are the classes.
    """

    items: str
    label: str
    metric: str
    classes: tuple[str, ...] | None = None


TASKS: dict[str, ProbeTask] = {
    "key": ProbeTask(items="mix", label="key", metric="weighted_score", classes=KEYS),
    "pitch": ProbeTask(items="note", label="pitch", metric="accuracy", classes=tuple(str(midi) for midi in range(128))),
    "family": ProbeTask(items="note", label="family", metric="accuracy"),
    "composer": ProbeTask(items="mix", label="composer", metric="accuracy"),
}


def is_known(value: int | str | None) -> bool:
    """Return whether a label says something."""
    return value is not None and value != -1 and value != ""


def class_names(task: ProbeTask, train_labels: Sequence[int | str]) -> tuple[str, ...]:
    """Return the names of a task's classes; those not declared are read off the training split alone."""
    return task.classes if task.classes is not None else tuple(sorted({str(label) for label in train_labels}))


def class_indices(task: ProbeTask, names: tuple[str, ...], labels: Sequence[int | str]) -> NDArray[np.int64]:
    """Return labels as indices into ``names``; -1 for a class that the training split does not have.

    Raises:
        MertError: an index outside the declared classes.
    """
    if task.classes is None:
        index = {name: position for position, name in enumerate(names)}
        return np.array([index.get(str(label), -1) for label in labels], dtype=np.int64)
    indices = np.array([int(label) for label in labels], dtype=np.int64)
    outside = sorted({int(label) for label in indices if not 0 <= label < len(names)})
    if outside:
        raise MertError(
            f"the probe set's column {task.label!r} holds {outside[:5]}; expected 0 to {len(names) - 1}. "
            "Run `mert probe-set` again."
        )
    return indices
