"""The probe set as the probes see it: items of one kind, their audio, their splits and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.corpus import Corpus
from mert_core.errors import MertError
from mert_core.probe.metrics import METRICS, Points
from mert_core.probe.tasks import ProbeTask, class_indices, class_names, is_known


@dataclass(frozen=True)
class Items:
    """All items of one kind, in the order of the manifest. A position is an index into them.

    Attributes:
        kind: ``mix`` or ``note``.
        corpus: where their audio lies.
        rows: their rows there (items,).
        track_ids: their names.
        content_hashes: SHA-256 of each one's PCM bytes.
        splits: train, valid or test.
        labels: columns of labels.
    """

    kind: str
    corpus: Corpus
    rows: NDArray[np.int64]
    track_ids: list[str]
    content_hashes: list[str]
    splits: list[str]
    labels: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def probe_set(self) -> str:
        """The id of the probe set's record."""
        return self.corpus.record.id

    @property
    def samples(self) -> NDArray[np.int64]:
        """Length of each item (items,)."""
        return self.corpus.samples[self.rows]

    def pcm(self, positions: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return whole items of one length (batch, samples)."""
        rows = self.rows[positions]
        return self.corpus.crops(rows, np.zeros(len(rows), dtype=np.int64), int(self.corpus.samples[rows[0]]))

    def of_split(self, split: str, label: str) -> NDArray[np.int64]:
        """Return the positions of a split's items whose label is known."""
        column = self.labels[label]
        return np.array(
            [i for i, where in enumerate(self.splits) if where == split and is_known(column[i])], dtype=np.int64
        )


def read_items(corpus: Corpus, kind: str) -> Items:
    """Return the items of one kind of a probe set.

    Raises:
        MertError: it has no labels, or no item of that kind.
    """
    labels = corpus.labels()
    rows = np.flatnonzero(np.array(labels["kind"].to_pylist()) == kind)
    if not len(rows):
        raise MertError(f"the probe set {corpus.folder} has no item of kind {kind!r}. Run `mert probe-set`.")
    names = [name for name in labels.column_names if name not in {"track_id", "kind"}]
    return Items(
        kind=kind,
        corpus=corpus,
        rows=rows,
        track_ids=[str(value) for value in corpus.column("track_id")[rows]],
        content_hashes=[str(value) for value in corpus.column("content_hash")[rows]],
        splits=[str(value) for value in corpus.column("split")[rows]],
        labels={name: labels[name].take(rows).to_pylist() for name in names},
    )


@dataclass(frozen=True)
class Question:
    """One task asked of one probe set: positions and answers per split.

    Attributes:
        task: the declaration.
        names: of the classes.
        points: the metric's table (classes, classes).
        positions: split → positions among the items.
        truth: split → class indices, -1 where the training split does not have the class.
        answers: split → the labels as text.
    """

    task: ProbeTask
    names: tuple[str, ...]
    points: Points
    positions: dict[str, NDArray[np.int64]]
    truth: dict[str, NDArray[np.int64]]
    answers: dict[str, list[str]]


def ask(task: ProbeTask, items: Items) -> Question:
    """Ask a task of items.

    Raises:
        MertError: the labels lack the task's column, or a split has no labelled item.
    """
    if task.label not in items.labels:
        raise MertError(f"the probe set's labels lack {task.label!r}; they have {', '.join(sorted(items.labels))}")
    positions = {split: items.of_split(split, task.label) for split in ("train", "valid", "test")}
    empty = [split for split, found in positions.items() if not len(found)]
    if empty:
        raise MertError(
            f"no {items.kind!r} item of {', '.join(empty)} has a known {task.label!r}. "
            "Ask for more items (probe_set in params.yaml)."
        )
    column = items.labels[task.label]
    known = {split: [column[i] for i in found] for split, found in positions.items()}
    names = class_names(task, known["train"])
    truth = {split: class_indices(task, names, labels) for split, labels in known.items()}
    answers = {
        split: [str(label) for label in labels] if task.classes is None else [names[index] for index in truth[split]]
        for split, labels in known.items()
    }
    return Question(task, names, METRICS[task.metric](len(names)), positions, truth, answers)
