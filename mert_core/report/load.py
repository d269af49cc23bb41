"""What the other stages left, read once for everything that shows it.

The report takes a `ReportData`; the leaderboard and the comparison of two models take `Scores` alone. The only thing
computed here is an example of each teacher whose targets nobody stores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from mert_core.config import BASELINES
from mert_core.data.corpus import Corpus
from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.results import LAYERS_NAME, ROBUSTNESS_NAME, SCORES_NAME
from mert_core.probing.tasks import PROXY_TASKS, PUBLIC_TASKS
from mert_core.targets.stage import example_of
from mert_core.teachers.registry import shown_teachers, teacher_class
from mert_core.teachers.stage import open_teacher

if TYPE_CHECKING:
    from mert_core.config import Config

ENTRY = ("metric", "value", "low", "high", "metrics", "tracks", "input", "protocol")
"""What each task's entry in ``scores.json`` must hold."""

NO_CODEBOOKS = np.zeros((0, 0))


@dataclass(frozen=True)
class Training:
    """One run's pre-training.

    Attributes:
        run: name of the run.
        record: the checkpoint's.
        curve: losses and accuracy while it trained, steps and values (points,) by (split, term).
        example: ``mask`` (frames,) of a validation crop and, for each teacher of a spectrum, ``true_NAME`` and
            ``predicted_NAME`` (frames, bins).
    """

    run: str
    record: Record
    curve: dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64]]]
    example: dict[str, NDArray[Any]]

    @property
    def teachers(self) -> dict[str, str]:
        """What each teacher's targets are, in words, by name."""
        return {name: str(facts["kind"]) for name, facts in self.record.facts["teachers"].items()}

    @property
    def unigram(self) -> dict[str, list[float]]:
        """Cross-entropy of guessing by frequency, in nats per codebook, by teacher of codes."""
        return dict(self.record.facts["unigram_cross_entropy_per_codebook"])


@dataclass(frozen=True)
class Labels:
    """One teacher's targets for the corpus.

    Attributes:
        teacher: name of the teacher.
        kind: what its targets are, in words.
        record: the stored targets'; None if none are stored, because the teacher needs no fitting.
        gate: rows of the label gate's table.
        usage: share of each entry (codebooks, entries) in the training split; without codebooks for a spectrum.
        example: an excerpt's targets and spectrogram, as the store keeps it.
    """

    teacher: str
    kind: str
    record: Record | None
    gate: list[dict[str, Any]]
    usage: NDArray[np.float64]
    example: dict[str, NDArray[Any]]

    @property
    def entropy_bits(self) -> NDArray[np.float64]:
        """Entropy of each codebook, in bits (codebooks,)."""
        terms = np.zeros_like(self.usage)
        np.log2(self.usage, out=terms, where=self.usage > 0)
        return -(self.usage * terms).sum(axis=1)

    @property
    def used_share(self) -> NDArray[np.float64]:
        """Share of each codebook's entries that occur at all (codebooks,)."""
        return (self.usage > 0).mean(axis=1)


@dataclass(frozen=True)
class Scores:
    """One encoder's probe scores.

    Attributes:
        run: name of a run, a baseline or another model.
        record: the scores'.
        tasks: task to its entry in ``scores.json``: main metric, value, low, high, ``metrics`` (each with value, low,
            high), tracks, input, rate, protocol, …
        layers: task to rows of input (a hidden state, or ``weighted``) and its best validation score.
        robustness: task to deformation to points (level, label, value, low, high), the clean one first.
        skipped: task to the reason why it was not probed.
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
    def is_baseline(self) -> bool:
        """Whether nothing was learned here: the network untrained, or mel statistics."""
        return self.run in BASELINES


@dataclass(frozen=True)
class ReportData:
    """All that the report shows.

    Attributes:
        corpus: record of the music.
        quarantine: rows of path, reason and detail.
        labels: targets of the teachers shown.
        runs: names of the runs shown, whether they have been trained and probed yet or not.
        trainings: of those runs that have been pre-trained.
        scores: of those that have been probed, then of the baselines.
    """

    corpus: Record
    quarantine: list[dict[str, str]]
    labels: list[Labels]
    runs: tuple[str, ...]
    trainings: list[Training]
    scores: list[Scores]

    @property
    def scored(self) -> list[Scores]:
        """Scores of those encoders that have any: where no data set is here, every task is skipped."""
        return [item for item in self.scores if item.tasks]

    @property
    def proxy_tasks(self) -> list[str]:
        """Proxy tasks that every scored encoder has, in the order in which they are declared."""
        return self._common(PROXY_TASKS)

    @property
    def fourteen(self) -> list[str]:
        """Those of the fourteen tasks that every scored encoder has."""
        return self._common(PUBLIC_TASKS)

    def _common(self, tasks: Iterable[str]) -> list[str]:
        return [task for task in tasks if self.scored and all(task in item.tasks for item in self.scored)]

    @property
    def tasks(self) -> list[str]:
        """Both: the proxy tasks, then the fourteen."""
        return self.proxy_tasks + self.fourteen

    @property
    def pending(self) -> dict[str, str]:
        """Why each run or baseline that is shown has no scores yet."""
        reasons = {run: "not pre-trained yet" for run in self.runs}
        reasons |= dict.fromkeys((*(training.run for training in self.trainings), *BASELINES), "not probed yet")
        reasons |= {item.run: "probed on nothing: every task was skipped" for item in self.scores}
        done = {item.run for item in self.scored}
        return {name: reason for name, reason in reasons.items() if name not in done}


def load_report(config: Config, layout: Layout) -> ReportData:
    """Read the outputs of all stages before the report. A run that was not trained or probed yet is left pending.

    Raises:
        MertError: corpus or targets are missing, an output is unreadable, or the encoders have no task in common; the
            message says which stage makes it.
    """
    runs, corpus = tuple(config.shown_runs), read_record(layout.corpus)
    with _reading(layout.corpus / "quarantine.parquet"):
        quarantine = parquet.read_table(layout.corpus / "quarantine.parquet").to_pylist()
    data = ReportData(
        corpus=corpus,
        quarantine=quarantine,
        labels=[_read_labels(config, layout, teacher) for teacher in shown_teachers(config)],
        runs=runs,
        trainings=[read_training(layout, run) for run in runs if layout.model(run).exists()],
        scores=[read_scores(layout, run) for run in (*runs, *BASELINES) if layout.scores(run).exists()],
    )
    if data.scored and not data.tasks:
        raise MertError(
            f"{', '.join(item.run for item in data.scored)} have no probed task in common. "
            "Run `dvc repro` so that all are probed alike."
        )
    return data


@contextmanager
def _reading(path: Path, remedy: str = "`dvc repro` or `dvc checkout`") -> Iterator[None]:
    """Name a file that cannot be read, and the command that writes it."""
    try:
        yield
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise MertError(f"{path} cannot be read ({error}). Run {remedy}.") from error


def _read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _read_arrays(path: Path, command: str) -> dict[str, NDArray[Any]]:
    with _reading(path, f"`{command}`"), np.load(path) as stored:
        return dict(stored)


def _read_usage(path: Path) -> NDArray[np.float64]:
    """Return each entry's share of the training frames (codebooks, entries)."""
    with _reading(path):
        table = parquet.read_table(path, filters=[("split", "=", "train")])
    codebook, entry, count = (table[name].to_numpy() for name in ("codebook", "entry", "count"))
    counts = np.zeros((1 + codebook.max(), 1 + entry.max()))
    counts[codebook, entry] = count
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _read_labels(config: Config, layout: Layout, teacher: str) -> Labels:
    """Return a teacher's targets; of a teacher that needs no fitting they may not be stored, but for an example."""
    folder = layout.targets(teacher)
    if not folder.exists() and teacher_class(config.teacher(teacher).kind).needs == "nothing":
        model = open_teacher(config, layout, teacher)[0]
        example = example_of(model, Corpus.open(layout.corpus))
        return Labels(teacher, str(model.kind), None, [], NO_CODEBOOKS, example)
    usage, record = folder / "usage.parquet", read_record(folder)
    return Labels(
        teacher,
        str(record.facts["kind"]),
        record,
        list(_read_json(folder / "gate.json")["checks"]),
        _read_usage(usage) if usage.exists() else NO_CODEBOOKS,
        _read_arrays(folder / "example.npz", f"mert targets {teacher}"),
    )


def read_training(layout: Layout, run: str) -> Training:
    """Return a run's pre-training.

    Raises:
        MertError: a file is missing or unreadable.
    """
    folder = layout.model(run)
    record = read_record(folder)
    with _reading(folder / "curve.parquet"):
        points = parquet.read_table(folder / "curve.parquet").to_pandas().sort_values(["step", "value"])
    curve = {
        key: (rows["step"].to_numpy(np.int64), rows["value"].to_numpy(np.float64))
        for key, rows in points.groupby(["split", "term"])
    }
    return Training(run, record, curve, _read_arrays(folder / "example.npz", f"mert pretrain --run {run}"))


def read_scores(layout: Layout, run: str, folder: Path | None = None) -> Scores:
    """Return a run's or a baseline's probe scores: the pipeline's, or those in another folder.

    Raises:
        MertError: a file is missing, unreadable, or of a form that this version does not write.
    """
    folder = folder or layout.scores(run)
    record, content = read_record(folder), _read_json(folder / SCORES_NAME)
    tasks = content.get("tasks", {})
    for task, score in tasks.items():
        if lacking := [name for name in ENTRY if name not in score]:
            raise MertError(
                f"{folder / SCORES_NAME}: {task} has no {', '.join(lacking)}; an earlier version wrote it. Probe "
                f"again: `dvc repro`, or `mert probe --run {run}`."
            )
    layers = {
        task: [(state, value) for state, value in rows] for task, rows in _read_json(folder / LAYERS_NAME).items()
    }
    degraded = folder / ROBUSTNESS_NAME
    robustness = _read_json(degraded) if degraded.exists() else {}
    return Scores(run, record, tasks, layers, robustness, content.get("skipped", {}), dict.fromkeys(tasks, folder))


STALE = "probed from other weights than the rest; probe it again"


def probed_models(layout: Layout) -> list[str]:
    """Return the runs, baselines and other models that have been probed here, sorted."""
    names = {path.parent.name for path in layout.scores("any").parent.glob(f"*/{RECORD_NAME}")}
    names |= {path.relative_to(layout.probed_top).parts[0] for path in layout.probed_top.glob(f"*/**/{RECORD_NAME}")}
    return sorted(name for name in names if not name.startswith("."))


def read_all_scores(layout: Layout, name: str) -> Scores:
    """Return all scores of one model: the pipeline's, and those that ``mert probe --task`` added.

    A name may have stood for other weights, before a run was trained anew, say. The weights that count are those of the
    pipeline's scores, else of the latest; a task that was probed from others is skipped, and says so.

    Raises:
        MertError: the model was not probed, or a file cannot be read.
    """
    parts = [read_scores(layout, name, folder) for folder in _folders(layout, name)]
    if not parts:
        models = ", ".join(probed_models(layout))
        raise MertError(f"{name} has not been probed here; found {models or 'nothing'}. Run `mert probe` for it.")
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


def _folders(layout: Layout, name: str) -> Iterator[Path]:
    """Yield the pipeline's folder, then what was added, the latest first. A half-written one begins with a dot."""
    if (layout.scores(name) / RECORD_NAME).exists():
        yield layout.scores(name)
    records = sorted((layout.probed_top / name).rglob(RECORD_NAME), key=lambda path: path.stat().st_mtime_ns)
    for folder in (path.parent for path in reversed(records)):
        if not any(part.startswith(".") for part in folder.relative_to(layout.data).parts):
            yield folder
