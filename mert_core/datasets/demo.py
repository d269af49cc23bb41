"""The demo's data set: performed scores, asked the fourteen tasks' questions; the labels follow from the notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mert_core.config import Split
from mert_core.data.corpus import Corpus
from mert_core.datasets.base import SPLITS, Clip, ClipSet
from mert_core.datasets.keys import KEYS
from mert_core.datasets.sounds import StoredSound
from mert_core.errors import MertError
from mert_core.synth.instruments import NOTE_FAMILIES, NOTE_HIGHEST, NOTE_LOWEST
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.phrases import PERFORMERS, TECHNIQUES
from mert_core.synth.stems import ROLES
from mert_core.synth.track import DESCRIPTORS

_FEWEST_CLIPS, _FEWEST_SHARE = 2, 0.01  # of each split, with a tag and without it, for the tag to be a class
_TOP = 50  # as MTG-Jamendo and MagnaTagATune have


@dataclass(frozen=True)
class _Item:
    """One track with its labels."""

    clip_id: str
    split: Split
    piece: str
    sound: StoredSound
    labels: dict[str, Any]

    def clip(self, label: Any) -> Clip:
        return Clip(self.clip_id, self.split, self.sound, label, artist=self.piece)


@dataclass(frozen=True)
class _Answers:
    """What is asked: clips in any order, classes, and how many clips of each reason could not be asked."""

    clips: list[Clip]
    classes: tuple[str, ...] = ()
    left_out: Mapping[str, int] | None = None


class _ProbeSet:
    """A probe set's rows, kind by kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = Corpus.open(folder)

    def items(self, kind: str, *columns: str) -> list[_Item]:
        """Return the tracks of a kind with some of their labels.

        Raises:
            MertError: there are none, or the labels lack a column.
        """
        labels = self.corpus.labels()
        missing = sorted({"kind", *columns} - set(labels.column_names))
        if missing:
            raise MertError(
                f"the labels of {self.folder} lack {', '.join(missing)}: an older version made them. "
                "Run `mert probe-set` again."
            )
        rows = np.flatnonzero(pc.equal(labels["kind"], kind).to_numpy())
        if not len(rows):
            raise MertError(f"the probe set {self.folder} has no item of kind {kind!r}. Run `mert probe-set`.")
        values = [labels[name].take(rows).to_pylist() for name in columns]
        names = ("track_id", "split", "piece", "content_hash")
        manifest = [self.corpus.column(name)[rows] for name in names]
        return [
            _Item(
                clip_id=str(track_id),
                split=split,
                piece=str(piece),
                sound=StoredSound(self.folder, int(row), str(content_hash)),
                labels=dict(zip(columns, own, strict=True)),
            )
            for row, track_id, split, piece, content_hash, *own in zip(rows, *manifest, *values, strict=True)
        ]


def _single(kind: str, column: str, classes: tuple[str, ...] | None = None) -> Callable[[_ProbeSet], _Answers]:
    """Ask for one label, as text; without ``classes`` they are what occurs."""

    def ask(probe_set: _ProbeSet) -> _Answers:
        clips = [item.clip(str(item.labels[column])) for item in probe_set.items(kind, column)]
        return _Answers(clips, tuple(sorted({clip.label for clip in clips})) if classes is None else classes)

    return ask


def _key(probe_set: _ProbeSet) -> _Answers:
    items = probe_set.items("mix", "key")
    known = [item for item in items if item.labels["key"] != UNKNOWN_KEY]
    left_out = {"key unknown": len(items) - len(known)} if len(known) < len(items) else None
    return _Answers([item.clip(KEYS[item.labels["key"]]) for item in known], KEYS, left_out)


def _technique(probe_set: _ProbeSet) -> _Answers:
    """Ask performers who are held out in the test split, and only there."""
    held_out = {one.name for one in PERFORMERS if one.held_out}
    items = probe_set.items("phrase", "technique", "performer")
    asked = [item for item in items if (item.labels["performer"] in held_out) == (item.split == "test")]
    return _Answers([item.clip(item.labels["technique"]) for item in asked], tuple(TECHNIQUES))


def _instruments(labels: dict[str, Any]) -> list[str]:
    from pretty_midi import program_to_instrument_name

    return [program_to_instrument_name(program).lower() for program in labels["programs"]]


def _all_tags(labels: dict[str, Any]) -> list[str]:
    return [*_instruments(labels), *labels["families"], *labels["moods"], *labels["genres"]]


def _tags(
    read: Callable[[dict[str, Any]], list[str]], *columns: str, top: int | None = None
) -> Callable[[_ProbeSet], _Answers]:
    """Ask which tags hold, of those that are common enough; of these only the ``top`` commonest in training."""

    def ask(probe_set: _ProbeSet) -> _Answers:
        items = probe_set.items("mix", *columns)
        tags = [set(read(item.labels)) for item in items]
        chosen = _common(items, tags)[:top]
        if not chosen:
            raise MertError(
                f"no tag of {', '.join(columns)} is common enough in {probe_set.folder}: each split must have "
                f"{_FEWEST_CLIPS} clips with it and without it. Ask for more (probe_set.mixes in params.yaml)."
            )
        classes = tuple(sorted(chosen))
        clips = [item.clip(tuple(tag for tag in classes if tag in own)) for item, own in zip(items, tags, strict=True)]
        return _Answers(clips, classes)

    return ask


def _common(items: list[_Item], tags: list[set[str]]) -> list[str]:
    """Return the tags with enough clips for and against them in every split, the commonest in training first."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    sizes = Counter(item.split for item in items)
    for item, own in zip(items, tags, strict=True):
        counts[item.split].update(own)
    fewest = {split: max(_FEWEST_CLIPS, _FEWEST_SHARE * sizes[split]) for split in SPLITS}
    enough = [
        tag
        for tag in counts["train"]
        if all(fewest[split] <= counts[split][tag] <= sizes[split] - fewest[split] for split in SPLITS)
    ]
    return sorted(enough, key=lambda tag: (-counts["train"][tag], tag))


def _descriptors(probe_set: _ProbeSet) -> _Answers:
    items = probe_set.items("mix", *DESCRIPTORS)
    return _Answers([item.clip(tuple(float(item.labels[name]) for name in DESCRIPTORS)) for item in items], DESCRIPTORS)


def _beats(probe_set: _ProbeSet) -> _Answers:
    items = probe_set.items("rhythm")
    table = probe_set.corpus.beats()
    table = table.filter(pc.is_in(table["track_id"], value_set=pa.array([item.clip_id for item in items])))
    seconds: dict[str, list[float]] = {}
    for track_id, second in zip(table["track_id"].to_pylist(), table["seconds"].to_pylist(), strict=True):
        seconds.setdefault(track_id, []).append(second)
    return _Answers([item.clip(np.array(seconds[item.clip_id], np.float64)) for item in items])


def _stems(probe_set: _ProbeSet) -> _Answers:
    items = probe_set.items("stem:mix", "mix")
    sounds = {
        role: {item.labels["mix"]: item.sound for item in probe_set.items(f"stem:{role}", "mix")} for role in ROLES
    }
    whole = [item for item in items if all(item.clip_id in sounds[role] for role in ROLES)]
    left_out = {"stem missing": len(items) - len(whole)} if len(whole) < len(items) else None
    return _Answers(
        [item.clip({role: sounds[role][item.clip_id] for role in ROLES}) for item in whole], ROLES, left_out
    )


_QUESTIONS: dict[str, Callable[[_ProbeSet], _Answers]] = {
    "mtt": _tags(_instruments, "programs"),
    "gs_key": _key,
    "gtzan_genre": _single("mix", "composer"),
    "gtzan_rhythm": _beats,
    "emo": _descriptors,
    "nsynth_instrument": _single("note", "family", NOTE_FAMILIES),
    "nsynth_pitch": _single("note", "pitch", tuple(map(str, range(NOTE_LOWEST, NOTE_HIGHEST + 1)))),
    "vocalset_technique": _technique,
    "vocalset_singer": _single("phrase", "performer", tuple(one.name for one in PERFORMERS)),
    "mtg_instrument": _tags(lambda labels: labels["families"], "families"),
    "mtg_mood": _tags(lambda labels: labels["moods"], "moods"),
    "mtg_genre": _tags(lambda labels: labels["genres"], "genres"),
    "mtg_top50": _tags(_all_tags, "programs", "families", "moods", "genres", top=_TOP),
    "musdb18": _stems,
}
"""By the names of the fourteen tasks, whose proxies they are."""


class Demo:
    """The probe set that `mert probe-set` makes: one question per task."""

    name = "demo"
    questions: tuple[str, ...] = tuple(_QUESTIONS)

    def read(self, folder: Path, question: str) -> ClipSet:
        """Return the clips of one question; splits go by piece.

        Args:
            folder: the probe set's.
            question: a task's name without ``demo/``.

        Raises:
            MertError: no such question; the probe set is missing, or lacks what is asked.
        """
        if question not in _QUESTIONS:
            raise MertError(f"the demo has no question {question!r}; it has {', '.join(_QUESTIONS)}")
        answers = _QUESTIONS[question](_ProbeSet(folder))
        clips = sorted(answers.clips, key=lambda clip: (SPLITS.index(clip.split), clip.clip_id))
        empty = [split for split in SPLITS if not any(clip.split == split for clip in clips)]
        if empty:
            raise MertError(
                f"the probe set {folder} has no clip for {question!r} in {', '.join(empty)}. "
                "Ask for more (probe_set in params.yaml)."
            )
        return ClipSet(self.name, question, tuple(clips), answers.classes, dict(answers.left_out or {}))
