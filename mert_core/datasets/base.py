"""What every data set answers, and what its adapter has to say for that.

The adapters read the official layouts themselves. mirdata 1.0.0 does not serve: its package brings no index of any of
these sets, so its loaders work only after a download; and it knows neither GTZAN's fault-filtered division nor the
GiantSteps of the published figures, only revisions of it. For MagnaTagATune and Emomusic it has no loader.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split
from mert_core.errors import MertError

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Sound(Protocol):
    """One piece of sound at 24 kHz, read when it is asked for; cheap to hold and to pickle."""

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of all that the samples follow from: the file's or shard's bytes, and what is cut."""

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded. `channels` raises it, too.
        """

    def channels(self) -> NDArray[np.float32]:
        """Return all channels, (channels, samples)."""


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


@dataclass(frozen=True)
class Survey:
    """What of a data set lies in its folder.

    Attributes:
        state: ``missing``: the folder, or a file without which nothing can be read, is not there.
        counts: counts by what is counted, such as ``clips``; and how many there should be.
        notes: what is missing or damaged and what to do, one sentence each.
        damaged: number of files that are there, but not as they were published.
    """

    state: Literal["missing", "incomplete", "complete"]
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    damaged: int = 0

    @classmethod
    def of(
        cls, counts: dict[str, tuple[int, int]], notes: Iterable[str], damaged: int = 0, usable: bool = True
    ) -> Survey:
        """Return the survey of a set that is there: complete if it is usable, undamaged and every count is right."""
        whole = usable and not damaged and all(count == total for count, total in counts.values())
        return cls("complete" if whole else "incomplete", counts, tuple(notes), damaged)


class ClipSource(ABC):
    """What answers questions with clips.

    Attributes:
        name: what its clip sets are called by.
        questions: what can be asked of it.
        remedy: what to do where a split has no clip.
    """

    name: str
    questions: tuple[str, ...]
    remedy = "`mert doctor --datasets` says what is missing"

    def read(self, folder: Path, question: str) -> ClipSet:
        """Return the clips of one question in their official splits. Sound is not decoded here.

        Raises:
            MertError: there is no such question; the set is missing; a file that says labels or splits is missing or
                not as expected; a split has no clip, or an id appears twice.
        """
        if question not in self.questions:
            raise MertError(f"{self.name} cannot be asked {question!r}; it answers {', '.join(self.questions)}")
        left_out = Counter[str]()
        clips, classes = self._clips(folder, question, left_out)
        ordered = tuple(sorted(clips, key=lambda clip: (SPLITS.index(clip.split), clip.clip_id)))
        if twice := sorted(name for name, count in Counter(clip.clip_id for clip in ordered).items() if count > 1):
            raise MertError(
                f"{self.name}/{question}: {len(twice)} clip(s) in {folder} appear more than once, the first is "
                f"{twice[0]!r}; each clip has one split and one label. Put the set's own label and split files back."
            )
        reasons = dict(sorted((+left_out).items()))  # without those that are counted zero times
        if empty := [split for split in SPLITS if not any(clip.split == split for clip in ordered)]:
            counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items()) or "none was left out"
            splits = " and ".join(empty)
            raise MertError(
                f"{self.name}/{question}: no usable clip for {splits} in {folder} ({counts}); {self.remedy}"
            )
        return ClipSet(self.name, question, ordered, classes, reasons)

    @abstractmethod
    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[Iterable[Clip], tuple[str, ...]]:
        """Return clips in any order and `ClipSet.classes`; count in ``left_out`` what cannot be used, by reason."""


class Dataset(ClipSource):
    """A labelled public data set in its official layout; its name is that in the registry, and of its folder.

    Attributes:
        title: as its authors call it.
        licence: what may be done with it.
        source: where to ask for it, and the paper.
    """

    title: str
    licence: str
    source: str

    @abstractmethod
    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Look at what is there.

        Args:
            folder: where the set lies.
            quick: count files only; otherwise published checksums are compared, too, where there are any.

        Raises:
            MertError: a label file cannot be read or is not as published.
        """
