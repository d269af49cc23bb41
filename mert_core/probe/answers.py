"""What probes answered on the test tracks: kept, so that two models can be compared track by track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.probe.metrics import Metric, Points, figures


@dataclass(frozen=True)
class Answers:
    """One model's answers to one task's test tracks.

    Attributes:
        ids: of the tracks.
        metrics: names in `mert_core.probe.metrics.METRICS` that ``outputs`` are judged by.
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
            "ids": _text(self.ids), "metrics": _text(self.metrics), "classes": _text(self.classes),
            "truth": self.truth, "outputs": self.outputs.astype(np.float32, copy=False),
        }  # fmt: skip
        arrays |= {f"points.{name}": self.points[name] for name in sorted(self.points)}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Answers:
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
