"""Clips with an answer, an encoder of which one hidden state holds it, and inputs that are evaluated in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mert_core.config import load_config
from mert_core.datasets.base import Clip, ClipSet
from mert_core.probing.encoders.base import Encoder
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.results import TaskResult
from mert_core.probing.tasks import Chunking, Task, TaskKind
from tests.probing.separation.material import ArraySound

CLASSES = ("low", "middle", "high", "highest")
SAMPLES = 2400


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
    """Return tones of 100 ms (or several) whose label is their height; with ``shuffled``, labels that say nothing."""
    generator = None if shuffled is None else np.random.default_rng(shuffled)
    time = np.arange(SAMPLES * windows) / 24000
    clips = []
    for number in range(3 * per_split):
        height, split = number % 4, ("train", "valid", "test")[number // per_split]
        said = height if generator is None else int(generator.integers(4))
        label: Any = CLASSES[said]
        if kind is TaskKind.MULTI:
            label = tuple(CLASSES[: said + 1])
        elif kind is TaskKind.REGRESSION:
            label = (float(said), 10.0 - said)
        tone = np.sin(2 * np.pi * (100 + 170 * height + number % 7) * time + number).astype(np.float32)
        clips.append(Clip(f"{split}-{number:03d}", split, ArraySound(tone[None]), label))  # type: ignore[arg-type]
    classes = ("height", "depth") if kind is TaskKind.REGRESSION else CLASSES
    return ClipSet("planted", "height", tuple(clips), classes)


def small_inputs(
    task: Task, clips: ClipSet, encoder: Encoder, caches: Path | None = None, robust: int = 0, **changes: Any
) -> EvalInputs:
    """Return inputs with changed settings; with ``robust``, so many clips are scored degraded, too."""
    settings = load_config(Path(__file__).parents[3] / "params.yaml").probe.of_demo()
    robustness = settings.robustness.model_copy(update={"tasks": [task.name] if robust else [], "clips": robust})
    settings = settings.model_copy(update={"bootstrap": 200, "robustness": robustness} | changes)
    return EvalInputs(task, clips, encoder, settings, 1337, caches, lambda chosen, rate: None)


def inputs_of(
    kind: TaskKind,
    clips: ClipSet,
    *,
    metrics: tuple[str, ...] = ("accuracy",),
    answer: int = 3,
    chunk_seconds: float | None = None,
    **changes: Any,
) -> EvalInputs:
    """Return inputs for probes of 32 units, at two rates and three seeds."""
    small = {"hidden": 32, "batch_items": 16, "max_epochs": 20, "patience": 8, "rates": [1e-3, 5e-3]}
    task = Task("demo/planted", "Planted", "planted", "height", kind, metrics, Chunking(chunk_seconds))
    return small_inputs(task, clips, Planted(answer), **small | changes)


def evaluate(inputs: EvalInputs, announced: list[Any] | None = None) -> TaskResult:
    """Evaluate the task; note the choice in ``announced`` before the test split is read."""
    if announced is not None:
        inputs = replace(inputs, before_test=lambda chosen, rate: announced.append((chosen, rate)))
    return EVALUATORS[inputs.task.kind].evaluate(inputs)


def watched(clips: ClipSet, seen: list[Any]) -> ClipSet:
    """Return the clips, of which those of the test split note in ``seen`` when their label is read."""

    class Watched(Clip):
        def __getattribute__(self, name: str) -> Any:
            if name == "label" and super().__getattribute__("split") == "test":
                seen.append("read")
            return super().__getattribute__(name)

    return replace(clips, clips=tuple(Watched(**vars(clip)) for clip in clips.clips))


def relabeled(clips: ClipSet, split: str | None, label: Any) -> ClipSet:
    """Return the clips, of which those of a split (None: all) have the label that a function makes of theirs."""
    changed = (replace(each, label=label(each.label)) if split in (None, each.split) else each for each in clips.clips)
    return replace(clips, clips=tuple(changed))


def without(clips: ClipSet, split: str) -> ClipSet:
    """Return the clips of the other splits."""
    return replace(clips, clips=tuple(clip for clip in clips.clips if clip.split != split))
