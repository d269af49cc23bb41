"""Reads what the other stages left. Nothing is computed here but examples of teachers whose targets nobody stores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from mert_core.data.corpus import Corpus
from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import DEMO, FLOORS, FOURTEEN
from mert_core.targets.stage import example_of
from mert_core.teachers.registry import teacher_class
from mert_core.teachers.stage import open_teacher

if TYPE_CHECKING:
    from mert_core.config import Config


ENTRY = ("metric", "value", "low", "high", "metrics", "tracks", "input", "protocol")
"""What `read_scores` needs to find of each task in ``scores.json``."""

Curve = dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Training:
    """One run's pre-training.

    Attributes:
        run: its name.
        record: of the checkpoint.
        curve: steps and values by (split, term).
        example: ``mask`` (frames,) of a validation crop, and of each teacher of a spectrum ``true_NAME`` and
            ``predicted_NAME`` (frames, bins).
    """

    run: str
    record: Record
    curve: Curve
    example: dict[str, NDArray[Any]]

    @property
    def teachers(self) -> dict[str, str]:
        """What each teacher's targets are, in words, by name."""
        return {name: str(facts["kind"]) for name, facts in self.record.facts["teachers"].items()}

    @property
    def unigram(self) -> dict[str, list[float]]:
        """What guessing by frequency costs, in nats per codebook, by teacher of codes."""
        return dict(self.record.facts["unigram_cross_entropy_per_codebook"])


@dataclass(frozen=True)
class Labels:
    """One teacher's targets for the corpus.

    Attributes:
        teacher: its name.
        kind: what its targets are, in words.
        record: of the targets; None if they are not stored, because the teacher needs no fitting.
        gate: the label gate's rows.
        usage: share of each entry (codebooks, entries) in the training split; None for a spectrum.
        example: an excerpt's targets and spectrogram, as the store keeps it.
    """

    teacher: str
    kind: str
    record: Record | None
    gate: list[dict[str, Any]]
    usage: NDArray[np.float64] | None
    example: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Scores:
    """One encoder's probe scores.

    Attributes:
        run: a named run, or a floor.
        record: of the scores.
        tasks: task to main metric, value, low, high, ``metrics`` (each with value, low, high), tracks, input, rate,
            protocol, …
        layers: task to rows of input (a hidden state, or ``weighted``) and its best validation score.
        robustness: task to deformation to points (level, label, value, low, high), the clean one first.
        skipped: task to why it was not probed.
        folders: task to the folder that holds its answers.
    """

    run: str
    record: Record
    tasks: dict[str, dict[str, Any]]
    layers: dict[str, list[tuple[int | str, float]]]
    robustness: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def is_floor(self) -> bool:
        """Whether this is a floor rather than a pre-trained run."""
        return self.run in FLOORS


@dataclass(frozen=True)
class ReportData:
    """All that the report shows.

    Attributes:
        corpus: record of the music.
        quarantine: rows of path, reason and detail.
        labels: targets of the teachers shown.
        trainings: of the runs shown.
        scores: of the runs shown, then of the floors.
    """

    corpus: Record
    quarantine: list[dict[str, str]]
    labels: list[Labels]
    trainings: list[Training]
    scores: list[Scores]

    @property
    def stand_ins(self) -> list[str]:
        """Stand-ins that every encoder was probed on, in the order in which they are declared."""
        return common(self.scores, DEMO)

    @property
    def fourteen(self) -> list[str]:
        """Those of the fourteen that every encoder was probed on."""
        return common(self.scores, FOURTEEN)

    @property
    def tasks(self) -> list[str]:
        """Both: the stand-ins, then the fourteen."""
        return self.stand_ins + self.fourteen


def common(scores: Sequence[Scores], tasks: Iterable[str]) -> list[str]:
    """Return those tasks that every encoder was probed on."""
    return [task for task in tasks if all(task in item.tasks for item in scores)]


def collect(config: Config, layout: Layout) -> ReportData:
    """Read the outputs of all stages before.

    Raises:
        MertError: an output is missing or unreadable; the message says which stage makes it.
    """
    material = ReportData(
        corpus=read_record(layout.corpus),
        quarantine=read_rows(layout.corpus / "quarantine.parquet"),
        labels=[read_labels(config, layout, teacher) for teacher in config.report.teachers],
        trainings=[read_training(layout, run) for run in config.report.runs],
        scores=[read_scores(layout, run) for run in (*config.report.runs, *FLOORS)],
    )
    if not material.tasks:
        raise MertError("the runs and the floors have no task in common. Run `dvc repro` so that all are probed alike.")
    return material


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return a parquet file's rows.

    Raises:
        MertError: it cannot be read.
    """
    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:
        raise MertError(f"{path} cannot be read ({error}). Run `dvc repro` or `dvc checkout`.") from error


def read_json(path: Path) -> Any:
    """Return a JSON file's content.

    Raises:
        MertError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MertError(f"{path} cannot be read ({error}). Run `dvc repro` or `dvc checkout`.") from error


def read_gate(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the label gate's table."""
    return list(read_json(path)["checks"])


def read_usage(path: Path) -> NDArray[np.float64]:
    """Return each entry's share of the training frames (codebooks, entries)."""
    rows = [row for row in read_rows(path) if row["split"] == "train"]
    codebooks, entries = (1 + max(row[name] for row in rows) for name in ("codebook", "entry"))
    counts = np.zeros((codebooks, entries))
    for row in rows:
        counts[row["codebook"], row["entry"]] = row["count"]
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def read_labels(config: Config, layout: Layout, teacher: str) -> Labels:
    """Return a teacher's targets, as far as the report shows them.

    Raises:
        MertError: they are not stored, and the teacher must be fitted.
    """
    folder = layout.targets(teacher)
    if not folder.exists() and teacher_class(teacher).needs == "nothing":
        asked = open_teacher(config, layout, teacher)[0]
        return Labels(teacher, str(asked.kind), None, [], None, example_of(asked, Corpus.open(layout.corpus)))
    usage, record = folder / "usage.parquet", read_record(folder)
    return Labels(
        teacher,
        str(record.facts["kind"]),
        record,
        read_gate(folder / "gate.json"),
        read_usage(usage) if usage.exists() else None,
        read_arrays(folder / "example.npz", f"mert targets {teacher}"),
    )


def read_arrays(path: Path, command: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.npz`` file.

    Raises:
        MertError: it cannot be read; the message says which command writes it.
    """
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError) as error:
        raise MertError(f"{path} cannot be read ({error}). Run `{command}`.") from error


def read_training(layout: Layout, run: str) -> Training:
    """Return a run's pre-training."""
    folder = layout.model(run)
    record = read_record(folder)
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in read_rows(folder / "curve.parquet"):
        points.setdefault((row["split"], row["term"]), []).append((row["step"], row["value"]))
    curve = {}
    for key, pairs in points.items():
        steps, values = zip(*sorted(pairs), strict=True)
        curve[key] = (np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))
    return Training(run, record, curve, read_arrays(folder / "example.npz", f"dvc repro pretrain@{run}"))


def read_scores(layout: Layout, run: str) -> Scores:
    """Return a run's or a floor's probe scores, as the line left them.

    Raises:
        MertError: a file is missing, unreadable, or of a form that this version does not write.
    """
    return read_scores_of(layout.scores(run), run)


def read_scores_of(folder: Path, run: str) -> Scores:
    """Return the scores that one folder holds.

    Raises:
        MertError: as `read_scores`.
    """
    record, found = read_record(folder), read_json(folder / "scores.json")
    tasks = found.get("tasks", {})
    for task, score in tasks.items():
        if lacking := [name for name in ENTRY if name not in score]:
            raise MertError(
                f"{folder / 'scores.json'}: {task} has no {', '.join(lacking)}; an earlier version wrote it. Probe "
                f"again: `dvc repro`, or `mert probe --run {run}`."
            )
    layers = {
        task: [(heard if isinstance(heard, str) else int(heard), float(value)) for heard, value in rows]
        for task, rows in read_json(folder / "layers.json").items()
    }
    deformed = folder / "robustness.json"
    robustness = read_json(deformed) if deformed.exists() else {}
    folders = dict.fromkeys(tasks, folder)
    return Scores(run, record, tasks, layers, robustness, found.get("skipped", {}), folders)


STALE = "probed from other weights than the rest; probe it again"


def probed_names(layout: Layout) -> list[str]:
    """Return the runs, floors and other models that have been probed here, sorted."""
    found = {path.parent.name for path in layout.scores("any").parent.glob(f"*/{RECORD_NAME}")}
    top = layout.probed_top
    found |= {path.relative_to(top).parts[0] for path in top.glob(f"*/**/{RECORD_NAME}")}
    return sorted(name for name in found if not name.startswith("."))


def read_whole(layout: Layout, name: str) -> Scores:
    """Return all scores of one model: what the line has asked, and what was added.

    A name may have stood for other weights, before a run was trained anew, say. The line's are those that count, else
    the latest; what was probed from others is skipped, and says so.

    Raises:
        MertError: it was not probed, or a file cannot be read.
    """
    parts = [read_scores_of(folder, name) for folder in _folders(layout, name)]
    if not parts:
        raise MertError(f"{name} has not been probed here; found {', '.join(probed_names(layout)) or 'nothing'}")
    whole = parts[0]
    for part in parts[1:]:
        if part.record.facts.get("encoder") != whole.record.facts.get("encoder"):
            whole = replace(whole, skipped=dict.fromkeys(part.tasks.keys() - whole.tasks.keys(), STALE) | whole.skipped)
            continue
        whole = replace(
            whole,
            tasks=part.tasks | whole.tasks,
            layers=part.layers | whole.layers,
            robustness=part.robustness | whole.robustness,
            skipped={task: why for task, why in (part.skipped | whole.skipped).items() if task not in part.tasks},
            folders=part.folders | whole.folders,
        )
    return whole


def _folders(layout: Layout, name: str) -> list[Path]:
    """Return the line's folder, then what was added, the latest first."""
    line = layout.scores(name)
    records = sorted((layout.probed_top / name).rglob(RECORD_NAME), key=lambda path: path.stat().st_mtime_ns)
    added = [path.parent for path in reversed(records)]
    visible = [
        folder for folder in added if not any(part.startswith(".") for part in folder.relative_to(layout.data).parts)
    ]
    return [*([line] if (line / RECORD_NAME).exists() else []), *visible]
