"""How far a trained probe's score falls when the same test clips are deformed: curves over the deformations' levels.

Nothing is trained or chosen here: the probe is the one that the clean validation clips selected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.datasets.base import Clip, Sound
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, embeddings
from mert_core.probing.encoders.base import Encoder
from mert_core.probing.tasks import Task, TaskKind

Judge = Callable[[Embeddings, Sequence[Clip]], tuple[float, float, float]]
"""From the embeddings of clips, in their order and none missing, to the score and its interval's bounds."""

_MOVES_WITH_PITCH = {
    "gs_key",
    "nsynth_pitch",
    "demo/gs_key",
    "demo/nsynth_pitch",
    "demo/emo",
    "demo/mtg_mood",
    "demo/mtg_top50",
}
_MOVES_WITH_GAIN = {"demo/mtg_mood", "demo/mtg_top50"}


def applies(task: Task, deformation: str) -> bool:
    """Tell whether the answers stay true when the sound is so deformed.

    A shifted pitch is another key and another note, and in the stand-ins another register (``demo/emo``, the tags low
    and high of moods and of the commonest tags); a gain makes their loud music soft. The truth of a separation is the
    stems as they are, so nothing is asked of it.
    """
    if task.kind is TaskKind.STEMS:
        return False
    if deformation == "pitch":
        return task.name not in _MOVES_WITH_PITCH
    return deformation != "gain" or task.name not in _MOVES_WITH_GAIN


@dataclass(frozen=True)
class Deformed:
    """A deformed sound.

    Attributes:
        sound: as it was.
        deformation: name in `DEFORMATIONS`.
        level: of the deformation.
    """

    sound: Sound
    deformation: str
    level: float

    @property
    def identity(self) -> str:
        """SHA-256 of the sound's identity, the deformation, its version and its level."""
        deformation = DEFORMATIONS[self.deformation]
        text = f"{self.sound.identity} {deformation.name} {deformation.version} {self.level!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels, deformed (samples,); what is random follows from the identity."""
        return DEFORMATIONS[self.deformation].apply(self.sound.waveform(), self.level, self._seed)

    def channels(self) -> NDArray[np.float32]:
        """Return each channel, deformed by itself (channels, samples)."""
        deformation, channels = DEFORMATIONS[self.deformation], self.sound.channels()
        return np.stack(
            [deformation.apply(channel, self.level, self._seed + number) for number, channel in enumerate(channels)]
        )

    @property
    def _seed(self) -> int:
        return int(self.sound.identity[:15], 16)


def some_clips(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Return at most so many clips, the first by the hash of their ids, in the order given."""
    first = sorted(clips, key=lambda clip: hashlib.sha256(clip.clip_id.encode()).hexdigest())[:most]
    chosen = {clip.clip_id for clip in first}
    return [clip for clip in clips if clip.clip_id in chosen]


def curves(
    encoder: Encoder, task: Task, clips: Sequence[Clip], judge: Judge, caches: Path | None
) -> dict[str, list[dict[str, Any]]]:
    """Score the same clips clean and under each deformation that leaves the task's answers true.

    Args:
        encoder: what the probe was trained on.
        task: says how clips are cut and pooled, and which deformations apply.
        clips: of the test split, see `some_clips`. Those without usable sound are left out of every point.
        judge: predicts with the trained probe and scores.
        caches: where embeddings are kept.

    Returns:
        Deformation → points ``{"level", "label", "value", "low", "high"}``, from clean to strong: the first is the
        clean one.

    Raises:
        MertError: no clip is usable, or one that is becomes unusable deformed.
    """
    clean = embeddings(encoder, [clip.sound for clip in clips], task.chunking, task.pooling, caches, task.name)
    if clean.missing:
        clips = [clip for number, clip in enumerate(clips) if number not in clean.missing]
        clean = embeddings(encoder, [clip.sound for clip in clips], task.chunking, task.pooling, caches, task.name)
    best = judge(clean, clips)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, deformation in DEFORMATIONS.items():
        if not applies(task, name):
            continue
        points = [_point(deformation.clean, deformation.label(deformation.clean), best)]
        for level in deformation.levels:
            sounds = [Deformed(clip.sound, name, level) for clip in clips]
            title = f"{task.name}, {name} {deformation.label(level)}"
            deformed = embeddings(encoder, sounds, task.chunking, task.pooling, caches, title)
            if deformed.missing:
                raise MertError(f"{title}: {len(deformed.missing)} clips of {len(clips)} cannot be read any more")
            points.append(_point(level, deformation.label(level), judge(deformed, clips)))
        found[name] = points
    return found


def _point(level: float, label: str, score: tuple[float, float, float]) -> dict[str, Any]:
    value, low, high = score
    return {"level": level, "label": label, "value": value, "low": low, "high": high}
