"""The results of probing an encoder, and their files: the same to the byte when a task is run again.

``scores.json`` has an entry per task, ``layers.json`` each input's validation score, ``robustness.json`` the curves
over degraded music, and ``answers/TASK.npz`` the predictions for every test track (`Predictions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.probing.metrics import Metric, Points, figures


@dataclass(frozen=True)
class Predictions:
    """One model's predictions for one task's test tracks.

    Attributes:
        ids: names of the tracks.
        metrics: names in `mert_core.probing.metrics.METRICS` by which ``outputs`` are scored.
        classes: names of classes, tags or targets.
        truth: class (tracks,), or tags or values (tracks, outputs); empty where there are only points.
        outputs: float32 (seeds, tracks, outputs); empty where there are only points.
        points: what each track earned by other metrics (``f_measure``, ``sdr_vocals``), each (seeds, tracks).
    """

    ids: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    truth: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    outputs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))
    points: Mapping[str, Points] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tracks = len(self.ids)
        sizes = {name: points.shape[-1] for name, points in self.points.items()}
        if self.metrics:
            sizes |= {"truth": len(self.truth), "outputs": self.outputs.shape[1]}
        wrong = {name: size for name, size in sizes.items() if size != tracks}
        if wrong or not sizes:
            raise MertError(f"predictions of {tracks} tracks hold {wrong or 'nothing'}, expected one of each track")

    def figures(self) -> list[Metric]:
        """Return the figures that a table shows of the outputs; those of ``points`` are their means."""
        return [metric for name in self.metrics for metric in figures(name, self.classes)]

    def save(self, path: Path) -> None:
        """Write an npz file, atomically; equal predictions give equal bytes."""
        arrays: dict[str, NDArray[Any]] = {
            "ids": np.array(self.ids, dtype=np.str_),
            "metrics": np.array(self.metrics, dtype=np.str_),
            "classes": np.array(self.classes, dtype=np.str_),
            "truth": self.truth,
            "outputs": self.outputs.astype(np.float32, copy=False),
        }
        arrays |= {f"points.{name}": self.points[name] for name in sorted(self.points)}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            MertError: missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                points = {name.removeprefix("points."): stored[name] for name in stored if name.startswith("points.")}
                ids, metrics, classes = (tuple(stored[name].tolist()) for name in ("ids", "metrics", "classes"))
                return cls(ids, metrics, classes, stored["truth"], stored["outputs"], points)
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise MertError(
                f"the predictions {path} cannot be read: {error}. Run `mert probe` for that model again."
            ) from error


def predictions_path(scores: Path, task: str) -> Path:
    """Return where the predictions of a task lie in the folder of an encoder's scores."""
    return scores / "answers" / f"{task.replace('/', '_')}.npz"


@dataclass(frozen=True)
class Estimate:
    """A score with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskResult:
    """One task's scores for one encoder.

    An evaluator fills in all but the last three, which say what was scored: `mert_core.probing.run` adds them.

    Attributes:
        task: name of the task.
        metric: name of the metric that selected on validation.
        summary: that metric on the test split; of several figures (``r2``, ``sdr``) their mean.
        metrics: every figure of the tables by name.
        tracks: how many the test split has.
        classes: number of outputs of a probe.
        input: hidden state, or ``weighted``.
        rate: learning rate.
        validation: score by which input and rate were chosen, mean over seeds.
        per_seed: the metric on the test split for each seed.
        by_input: every input's validation score at its best rate.
        predictions: outputs for every test track, for paired comparisons.
        left_out: reason → clips that could not be used.
        robustness: deformation → points; empty where none was wanted.
        protocol: hash of the task's whole protocol.
        test_set: hash of the test tracks and their sound.
        encoder: `mert_core.probing.encoders.base.identity` of the encoder.
    """

    task: str
    metric: str
    summary: Estimate
    metrics: dict[str, Estimate]
    tracks: int
    classes: int
    input: int | str
    rate: float
    validation: float
    per_seed: list[float]
    by_input: list[tuple[int | str, float]]
    predictions: Predictions
    left_out: dict[str, int] = field(default_factory=dict)
    robustness: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    protocol: str = ""
    test_set: str = ""
    encoder: str = ""

    @property
    def entry(self) -> dict[str, Any]:
        """The task's entry in ``scores.json``."""
        names = ("tracks", "classes", "input", "rate", "validation", "per_seed", "protocol", "test_set")
        return {
            "metric": self.metric,
            **asdict(self.summary),
            "metrics": {name: asdict(estimate) for name, estimate in self.metrics.items()},
            **{name: getattr(self, name) for name in names},
            "left_out": dict(sorted(self.left_out.items())),
        }


@dataclass(frozen=True)
class SkippedTask:
    """A task that could not be run.

    Attributes:
        task: name of the task.
        reason: why it was skipped.
        protocol: hash of the protocol that it would have had.
        encoder: `mert_core.probing.encoders.base.identity` of the encoder.
    """

    task: str
    reason: str
    protocol: str
    encoder: str


SCORES_NAME, LAYERS_NAME, ROBUSTNESS_NAME = "scores.json", "layers.json", "robustness.json"


def write_results(folder: Path, name: str, results: Sequence[TaskResult | SkippedTask]) -> None:
    """Write all files of one encoder, which tables call ``name``, to a folder that exists."""
    scored = [result for result in results if isinstance(result, TaskResult)]
    skipped = {result.task: result.reason for result in results if isinstance(result, SkippedTask)}
    tasks = {result.task: result.entry for result in scored}
    write_json(folder / SCORES_NAME, {"run": name, "tasks": tasks, "skipped": skipped})
    write_json(folder / LAYERS_NAME, {result.task: [list(pair) for pair in result.by_input] for result in scored})
    write_json(folder / ROBUSTNESS_NAME, {result.task: result.robustness for result in scored if result.robustness})
    for result in scored:
        result.predictions.save(predictions_path(folder, result.task))
