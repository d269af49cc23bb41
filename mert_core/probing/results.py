"""What a probed encoder leaves: scores, layers, robustness and answers, the same to the byte when run again."""

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
    """One model's answers to one task's test tracks.

    Attributes:
        ids: of the tracks.
        metrics: names in `mert_core.probing.metrics.METRICS` that ``outputs`` are judged by.
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
        found = {name: points.shape[-1] for name, points in self.points.items()}
        if self.metrics:
            found |= {"truth": len(self.truth), "outputs": self.outputs.shape[1]}
        wrong = {name: size for name, size in found.items() if size != tracks}
        if wrong or not found:
            raise MertError(f"answers of {tracks} tracks hold {wrong or 'nothing'}, expected one of each track")

    def figures(self) -> list[Metric]:
        """Return the figures that a table shows of the outputs; those of ``points`` are their means."""
        return [figure for name in self.metrics for figure in figures(name, self.classes)]

    def save(self, path: Path) -> None:
        """Write an npz file, atomically; equal answers give equal bytes."""
        arrays: dict[str, NDArray[Any]] = {
            "ids": _text(self.ids),
            "metrics": _text(self.metrics),
            "classes": _text(self.classes),
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
                f"the answers {path} cannot be read: {error}. Run `mert probe` for that model again."
            ) from error


def answers_path(scores: Path, task: str) -> Path:
    """Return where the answers to a task lie in the folder of an encoder's scores."""
    return scores / "answers" / f"{task.replace('/', '_')}.npz"


def _text(names: Sequence[str]) -> NDArray[np.str_]:
    return np.array(names, dtype=np.str_) if names else np.zeros(0, dtype="<U1")


@dataclass(frozen=True)
class Estimate:
    """A score with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskResult:
    """One task's outcome for one encoder.

    Attributes:
        metric: what was selected by.
        summary: that metric on the test split; of several figures (``r2``, ``sdr``) their mean.
        metrics: every figure of the tables by name.
        tracks: of the test split.
        classes: outputs of a probe.
        input: hidden state, or ``weighted``.
        rate: learning rate.
        validation: score by which input and rate were chosen, mean over seeds.
        per_seed: the metric on the test split for each seed.
        by_input: every input's validation score at its best rate.
        answers: to every test track, for paired comparisons.
    """

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
    answers: Predictions


SCORES_NAME, LAYERS_NAME, ROBUSTNESS_NAME = "scores.json", "layers.json", "robustness.json"


@dataclass(frozen=True)
class Result:
    """One task's outcome for one encoder.

    Attributes:
        task: its name.
        verdict: the scores; None where the task was skipped.
        skipped: why, else empty.
        protocol: hash of the task's whole protocol.
        left_out: reason → clips that could not be used.
        test_set: hash of the test tracks and their sound.
        encoder: `mert_core.probing.encoders.base.identity` of who was asked.
        robustness: deformation → points, where it was asked for.
    """

    task: str
    verdict: TaskResult | None = None
    skipped: str = ""
    protocol: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    test_set: str = ""
    encoder: str = ""
    robustness: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def score(self) -> dict[str, Any]:
        """The task's entry in ``scores.json``."""
        assert self.verdict is not None
        verdict = self.verdict
        return {
            "metric": verdict.metric,
            **asdict(verdict.summary),
            "metrics": {name: asdict(figure) for name, figure in verdict.metrics.items()},
            "tracks": verdict.tracks,
            "classes": verdict.classes,
            "input": verdict.input,
            "rate": verdict.rate,
            "validation": verdict.validation,
            "per_seed": verdict.per_seed,
            "protocol": self.protocol,
            "test_set": self.test_set,
            "left_out": dict(sorted(self.left_out.items())),
        }


def write_results(folder: Path, name: str, results: list[Result]) -> None:
    """Write all files of one encoder to a folder that exists."""
    scored = [(result, result.verdict) for result in results if result.verdict is not None]
    tasks = {result.task: result.score for result, _ in scored}
    skipped = {result.task: result.skipped for result in results if result.verdict is None}
    write_json(folder / SCORES_NAME, {"run": name, "tasks": tasks, "skipped": skipped})
    write_json(
        folder / LAYERS_NAME, {result.task: [list(row) for row in verdict.by_input] for result, verdict in scored}
    )
    write_json(folder / ROBUSTNESS_NAME, {result.task: result.robustness for result, _ in scored if result.robustness})
    for result, verdict in scored:
        verdict.answers.save(answers_path(folder, result.task))
