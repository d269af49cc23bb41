"""Labelling one unit: samples in, targets and facts out. What threads and Ray actors do alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.audio.pcm import ShardReader, to_float32
from mert_core.errors import MertError
from mert_core.targets.facts import TRACK_FACTS, track_facts
from mert_core.targets.form import number_type
from mert_core.targets.plan import Unit
from mert_core.teachers.base import Teacher
from mert_core.teachers.kinds import Codes


@dataclass(frozen=True)
class Labelled:
    """A unit's targets.

    Attributes:
        unit: the unit.
        targets: of each track, uint16 (frames, codebooks) or float16 (frames, bins).
        facts: of each track, (tracks,) of `TRACK_FACTS`.
    """

    unit: Unit
    targets: list[NDArray[Any]]
    facts: NDArray[np.void]


class Labeller:
    """A teacher over the shards of a corpus."""

    def __init__(self, teacher: Teacher, shards: Path, device: str = "cpu") -> None:
        self._teacher = teacher.to(device)
        self._reader = ShardReader(shards)
        self._device = device

    def __call__(self, unit: Unit) -> Labelled:
        """Label a unit's tracks, each as a whole.

        Raises:
            MertError: a shard cannot be read, or the teacher gives other targets than it declares.
        """
        kind = self._teacher.kind
        waveform = torch.zeros(len(unit.samples), int(unit.samples.max()))
        facts = np.zeros(len(unit.samples), dtype=TRACK_FACTS)
        for place, (offset, samples) in enumerate(zip(unit.offsets.tolist(), unit.samples.tolist(), strict=True)):
            pcm = self._reader.view(unit.shard, offset, samples)
            waveform[place, : len(pcm)] = torch.from_numpy(to_float32(pcm))
            facts[place] = track_facts(offset, pcm, None if unit.facts is None else unit.facts[place])
        with torch.inference_mode():
            found = self._teacher(waveform.to(self._device)).cpu().numpy()
        frames = unit.samples // HOP_SAMPLES
        if found.shape[0] != len(frames) or found.shape[1] < frames.max() or found.shape[2] != kind.width:
            raise MertError(
                f"the teacher {self._teacher.name} gave targets of shape {found.shape} for {len(frames)} tracks of up "
                f"to {frames.max()} frames; it declares {kind}"
            )
        return Labelled(
            unit, [_stored(found[place, :count], kind) for place, count in enumerate(frames.tolist())], facts
        )


def _stored(targets: NDArray[Any], kind: Any) -> NDArray[Any]:
    """Return targets as they are stored; a code below 0 becomes the largest number, a value beyond float16 infinite."""
    if isinstance(kind, Codes):
        targets = np.where(targets < 0, np.iinfo(np.uint16).max, np.minimum(targets, np.iinfo(np.uint16).max))
    with np.errstate(over="ignore"):
        return targets.astype(number_type(kind))
