"""Clips with an answer, and an encoder of which one hidden state holds it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.config import load_config
from mert_core.datasets.base import Clip, ClipSet
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.results import TaskResult
from mert_core.probing.tasks import Chunking, Task, TaskKind

CLASSES = ("low", "middle", "high", "highest")
SAMPLES = 2400


@dataclass(frozen=True)
class Tone:
    """A tone of 100 ms whose frequency tells the class; ``number`` is its phase."""

    number: int
    hertz: float
    windows: int = 1

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"{self.number} {self.hertz} {self.windows}".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        time = np.arange(SAMPLES * self.windows) / 24000
        return np.sin(2 * np.pi * self.hertz * time + self.number).astype(np.float32)

    def channels(self) -> NDArray[np.float32]:
        return self.waveform()[None]


class Planted:
    """Six hidden states of width 8: noise that follows from the sound, but for state ``answer``: its frequency."""

    device, states, width, frame_rate = "cpu", 6, 8, 75.0

    def __init__(self, answer: int = 3) -> None:
        self.answer = answer

    def pooled(self, waveform: Tensor) -> Tensor:
        return self.frames(waveform)[:, :, 0]

    def frames(self, waveform: Tensor) -> Tensor:
        found = torch.empty(self.states, len(waveform), 1, self.width)
        for number, row in enumerate(waveform):
            seed = int(row.abs().sum().item() * 1e6) % 2**31
            found[:, number] = torch.randn(self.states, 1, self.width, generator=torch.Generator().manual_seed(seed))
            crossings = int((row[1:].sign() != row[:-1].sign()).sum())
            found[self.answer, number, 0, min(int(crossings * SAMPLES / len(row) // 30), 7)] += 6.0
        return found

    def describe(self) -> dict[str, Any]:
        return {"encoder": "planted", "answer": self.answer}


def clip_set(kind: TaskKind, per_split: int = 64, windows: int = 1, shuffled: int | None = None) -> ClipSet:
    """Return clips whose label is their tone's height; with ``shuffled``, labels that say nothing."""
    generator = None if shuffled is None else np.random.default_rng(shuffled)
    clips, number = [], 0
    for split in ("train", "valid", "test"):
        for _ in range(per_split):
            height = number % 4
            said = height if generator is None else int(generator.integers(4))
            label: Any = CLASSES[said]
            if kind is TaskKind.MULTI:
                label = tuple(CLASSES[: said + 1])
            elif kind is TaskKind.REGRESSION:
                label = (float(said), 10.0 - said)
            tone = Tone(number, 100 + 170 * height + number % 7, windows)
            clips.append(Clip(f"{split}-{number:03d}", split, tone, label))  # type: ignore[arg-type]
            number += 1
    classes = ("height", "depth") if kind is TaskKind.REGRESSION else CLASSES
    return ClipSet("planted", "height", tuple(clips), classes)


def inputs_of(
    kind: TaskKind,
    metrics: tuple[str, ...],
    clips: ClipSet,
    *,
    chunk_seconds: float | None = None,
    caches: Path | None = None,
    robust: bool = False,
    **changes: Any,
) -> EvalInputs:
    """Return small inputs: 32 units, two rates, three seeds."""
    settings = load_config(Path(__file__).parents[3] / "params.yaml").probe.of_demo()
    settings = settings.model_copy(
        update={
            "hidden": 32,
            "bootstrap": 200,
            "batch_items": 16,
            "max_epochs": 20,
            "patience": 8,
            "rates": [1e-3, 5e-3],
        }
        | changes
    )
    task = Task("demo/planted", "Planted", "planted", "height", kind, metrics, Chunking(chunk_seconds))
    if robust:
        robustness = settings.robustness.model_copy(update={"tasks": [task.name], "clips": 16})
        settings = settings.model_copy(update={"robustness": robustness})
    return EvalInputs(task, clips, Planted(), settings, 1337, caches, lambda chosen, rate: None)


def evaluate(inputs: EvalInputs) -> TaskResult:
    """Return the result of the evaluator of the task's kind."""
    return EVALUATORS[inputs.task.kind].evaluate(inputs)


def watched(clips: ClipSet, seen: list[str]) -> ClipSet:
    """Return the clips, of which those of the test split note in ``seen`` when their label is read."""

    class Watched(Clip):
        def __getattribute__(self, name: str) -> Any:
            if name == "label" and super().__getattribute__("split") == "test":
                seen.append("read")
            return super().__getattribute__(name)

    return replace(clips, clips=tuple(Watched(**vars(clip)) for clip in clips.clips))
