"""How far a trained probe's score falls when the same test clips are degraded: curves over the deformations' levels.

Nothing is trained or chosen here: the probe is the one that the clean validation clips selected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.degrade import DEFORMATIONS, Deformation
from mert_core.datasets.base import Clip, Sound
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, embeddings
from mert_core.probing.encoders.base import Encoder
from mert_core.probing.results import Estimate
from mert_core.probing.tasks import Task

ScoreClips = Callable[[Embeddings, Sequence[Clip]], Estimate]
"""From the embeddings of clips, in their order and none missing, to the score and its interval."""


@dataclass(frozen=True)
class DegradedSound:
    """A sound after one deformation, by its name in `DEFORMATIONS`, at a level in the deformation's own unit."""

    sound: Sound
    deformation: str
    level: float

    @property
    def identity(self) -> str:
        """SHA-256 of the sound's identity, the deformation, its version and its level."""
        version = DEFORMATIONS[self.deformation].version
        text = f"{self.sound.identity} {self.deformation} {version} {self.level!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels, deformed (samples,); what is random follows from the identity."""
        return self._deformed(self.sound.waveform(), 0)

    def channels(self) -> NDArray[np.float32]:
        """Return each channel, deformed by itself (channels, samples)."""
        return np.stack([self._deformed(channel, number) for number, channel in enumerate(self.sound.channels())])

    def _deformed(self, samples: NDArray[np.float32], channel: int) -> NDArray[np.float32]:
        seed = int(self.sound.identity[:15], 16) + channel
        return DEFORMATIONS[self.deformation].apply(samples, self.level, seed)


def sample_clips(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Return at most so many clips, the first by the hash of their ids, in the order given."""
    first = sorted(clips, key=lambda clip: hashlib.sha256(clip.clip_id.encode()).hexdigest())[:most]
    chosen = {clip.clip_id for clip in first}
    return [clip for clip in clips if clip.clip_id in chosen]


def robustness_curves(
    encoder: Encoder, task: Task, clips: Sequence[Clip], score: ScoreClips, caches: Path | None
) -> dict[str, list[dict[str, Any]]]:
    """Score the same clips clean and under each deformation that leaves the task's labels true.

    The clips are some of the test split, see `sample_clips`; those without usable sound count at no level. ``score``
    predicts with the probe that was trained on embeddings of ``encoder``.

    Returns:
        Deformation → points ``{"level", "label", "value", "low", "high"}``, from clean to strong: the first is the
        clean one.

    Raises:
        MertError: no clip is usable, or one that is becomes unusable degraded.
    """

    def embed(sounds: Sequence[Sound], title: str) -> Embeddings:
        return embeddings(encoder, sounds, task.chunking, task.pooling, caches, title)

    def point(deformation: Deformation, level: float, estimate: Estimate) -> dict[str, Any]:
        return {"level": level, "label": deformation.label(level), **asdict(estimate)}

    clean = embed([clip.sound for clip in clips], task.name)
    if clean.missing:
        clips = [clip for number, clip in enumerate(clips) if number not in clean.missing]
        clean = embed([clip.sound for clip in clips], task.name)
    best = score(clean, clips)
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, deformation in DEFORMATIONS.items():
        if name in task.changed_by:
            continue
        curves[name] = [point(deformation, deformation.clean, best)]
        for level in deformation.levels:
            title = f"{task.name}, {name} {deformation.label(level)}"
            degraded = embed([DegradedSound(clip.sound, name, level) for clip in clips], title)
            if degraded.missing:
                raise MertError(f"{title}: {len(degraded.missing)} clips of {len(clips)} cannot be read any more")
            curves[name].append(point(deformation, level, score(degraded, clips)))
    return curves
