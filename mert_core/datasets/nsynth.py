"""NSynth: 305,979 single notes of 1,006 instruments, 4 s each at 16 kHz (Engel et al. 2017, arXiv 1704.01279)."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from mert_core.config import Split
from mert_core.datasets.base import SPLITS, Clip, Dataset, Survey
from mert_core.datasets.reading import ABSENT, EMPTY
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

NOTES: dict[Split, int] = {"train": 289_205, "valid": 12_678, "test": 4_096}
"""Notes of the official division."""

FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
"""In the order of the set's own numbers."""

PITCHES = tuple(str(number) for number in range(128))
"""MIDI numbers."""

_Labels = dict[str, tuple[str, str]]  # note → family, pitch


class NSynth(Dataset):
    """Adapter of NSynth in its layout of three archives: ``nsynth-SPLIT/examples.json`` and ``…/audio/NOTE.wav``."""

    name = "nsynth"
    title = "NSynth"
    licence = "CC BY 4.0"
    source = "https://magenta.tensorflow.org/datasets/nsynth (json/wav archives), arXiv 1704.01279"
    questions: tuple[str, ...] = ("instrument", "pitch")

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count the notes whose sound is there; without ``quick`` compare them with the labels. No checksums exist.

        Files without bytes are not told from others with ``quick``, as that takes a look at each of them.
        """
        lacking = [part for split in SPLITS if not (part := _labels_path(folder, split)).is_file()]
        if lacking:
            names = ", ".join(str(path.relative_to(folder)) for path in lacking)
            return Survey("missing", notes=(f"{folder} has no {names}; unpack the three json/wav archives there.",))
        counts, notes, damaged = {}, [], 0
        for split in SPLITS:
            sounds, empty = _sounds(folder, split, quick)
            if not quick:
                labels = _read_labels(_labels_path(folder, split))
                absent, bare = sorted(labels.keys() - sounds - empty), sorted(labels.keys() & empty)
                again = "unpack the archive again."
                if absent:
                    what = f"{len(absent)} of {len(labels)} notes have no wav, such as {absent[0]}.wav"
                    notes.append(f"nsynth-{split}: {what}; {again}")
                if bare:
                    notes.append(f"nsynth-{split}: {len(bare)} wavs have no bytes, such as {bare[0]}.wav; {again}")
                sounds &= labels.keys()
                damaged += len(bare)
            counts[f"{split} notes"] = (len(sounds), NOTES[split])
        return Survey.of(counts, notes, damaged, usable=not notes)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the notes with their instrument family or their MIDI pitch."""
        column = self.questions.index(question)
        clips: list[Clip] = []
        for split in SPLITS:
            labels = _read_labels(_labels_path(folder, split))
            sounds, empty = _sounds(folder, split)
            left_out.update(EMPTY if note in empty else ABSENT for note in labels if note not in sounds)
            clips += (
                Clip(note, split, FileSound(_audio(folder, split) / f"{note}.wav"), label[column])
                for note, label in labels.items()
                if note in sounds
            )
        return clips, (FAMILIES, PITCHES)[column]


def _labels_path(folder: Path, split: Split) -> Path:
    return folder / f"nsynth-{split}" / "examples.json"


def _audio(folder: Path, split: Split) -> Path:
    return folder / f"nsynth-{split}" / "audio"


def _sounds(folder: Path, split: Split, quick: bool = False) -> tuple[set[str], set[str]]:
    """Return the names of the notes that have a wav, and of those whose wav has no bytes.

    One listing is quicker than asking for each of 289,205. With ``quick``, files are not told apart by their bytes.
    """
    sounds: set[str] = set()
    empty: set[str] = set()
    if not _audio(folder, split).is_dir():
        return sounds, empty
    with os.scandir(_audio(folder, split)) as entries:
        for entry in entries:
            if entry.name.endswith(".wav") and entry.is_file():
                (sounds if quick or entry.stat().st_size else empty).add(entry.name[:-4])
    return sounds, empty


def _read_labels(path: Path) -> _Labels:
    """Return family and pitch of each note. Its other eleven fields are dropped while the file is parsed."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MertError(
            f"NSynth's labels {path} are missing or cannot be read ({error.strerror}); expected nsynth-train, "
            "nsynth-valid and nsynth-test, each with examples.json and audio/*.wav. Unpack the three json/wav archives "
            "there."
        ) from error
    try:
        labels = json.loads(text, object_hook=_only_labels)
    except ValueError as error:
        raise MertError(f"{path} is no JSON ({error}); unpack the archive again") from error
    if not isinstance(labels, dict) or not labels:
        raise MertError(f"{path}: expected an object with one entry per note; unpack the archive again")
    for note, label in labels.items():
        if not isinstance(label, tuple):
            found = {key: label.get(key) for key in _KEYS} if isinstance(label, dict) else label
            raise MertError(
                f"{path}, note {note!r}: found {found}; expected instrument_family_str ({', '.join(FAMILIES)}) and "
                "pitch (0 to 127). Unpack the archive again."
            )
    return labels


_KEYS = ("instrument_family_str", "pitch")


def _only_labels(entry: dict[str, Any]) -> dict[str, Any] | tuple[str, str]:
    """Return the labels of a note, in texts that all notes share; whatever else it is, as it is."""
    family, pitch = (entry.get(key) for key in _KEYS)
    if family in FAMILIES and isinstance(pitch, int) and 0 <= pitch < len(PITCHES):
        return FAMILIES[FAMILIES.index(family)], PITCHES[pitch]
    return entry
