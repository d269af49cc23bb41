"""What a data set gives to a probe: clips with a split, their sound and their label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Sound(Protocol):
    """One piece of sound at 24 kHz, read when it is asked for; cheap to hold and to pickle."""

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of all that the samples follow from: the file's or shard's bytes, and what is cut."""

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded.
        """

    def channels(self) -> NDArray[np.float32]:
        """Return all channels, (channels, samples).

        Raises:
            UnusableAudio: it cannot be decoded.
        """


Label = str | tuple[str, ...] | tuple[float, ...] | NDArray[np.float64] | Mapping[str, Sound]
"""By kind of question: the class's name (single) · names of the tags that hold (multi) · one value per name of
`ClipSet.classes` (regression) · seconds of the beats, rising (beats) · sound of each stem by name (stems)."""


@dataclass(frozen=True)
class Clip:
    """One labelled clip: the unit that is scored, and that intervals are drawn over.

    Attributes:
        clip_id: unique within the data set and question.
        split: where the official division has it.
        sound: of the whole clip; of the mixture where the label is stems.
        label: the answer.
        artist: who must not be in two splits, where the set says; else empty.
    """

    clip_id: str
    split: Split
    sound: Sound
    label: Any
    artist: str = ""


@dataclass(frozen=True)
class ClipSet:
    """A data set as one question sees it.

    Attributes:
        dataset: name in the registry.
        question: one of the data set's.
        clips: of all splits; sorted by split (train, valid, test), then by `Clip.clip_id`.
        classes: names of classes, tags, values or stems, in the order of a probe's outputs; empty for beats.
        left_out: reason → number of clips that the official division has and that could not be used.
    """

    dataset: str
    question: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    def of(self, split: Split) -> list[Clip]:
        """Return one split's clips."""
        return [clip for clip in self.clips if clip.split == split]
