"""The demo's data set: performed scores, asked the fourteen tasks' questions; the labels follow from the notes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from mert_core.data.corpus import Corpus
from mert_core.datasets.base import SPLITS, Clip, ClipSource, Sound
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

Asked = tuple[Iterable[Clip], tuple[str, ...]]
"""Clips in any order, and their classes."""
Question = Callable[[Corpus, Counter[str]], Asked]
"""Asks a probe set, and counts what could not be asked by reason."""


def _items(corpus: Corpus, kind: str, *columns: str) -> list[Clip]:
    """Return the tracks of a kind; the label is a mapping of some of their labels by name.

    Raises:
        MertError: there are none, or the labels lack a column.
    """
    labels = corpus.labels()
    missing = sorted({"kind", *columns} - set(labels.column_names))
    if missing:
        raise MertError(
            f"the labels of {corpus.folder} lack {', '.join(missing)}: an older version made them. "
            "Run `mert probe-set` again."
        )
    rows = np.flatnonzero(pc.equal(labels["kind"], kind).to_numpy())
    if not len(rows):
        raise MertError(f"the probe set {corpus.folder} has no item of kind {kind!r}. Run `mert probe-set`.")
    manifest = (corpus.column(name)[rows].tolist() for name in ("track_id", "split", "piece", "content_hash"))
    values = labels.select(["kind", *columns]).take(rows).to_pylist()
    return [
        Clip(track_id, split, StoredSound(corpus.folder, row, content_hash), own, artist=piece)
        for row, track_id, split, piece, content_hash, own in zip(rows.tolist(), *manifest, values, strict=True)
    ]


def _single(kind: str, column: str, classes: tuple[str, ...] = ()) -> Question:
    """Ask for one label, as text; without ``classes`` they are what occurs."""

    def ask(corpus: Corpus, left_out: Counter[str]) -> Asked:
        clips = [replace(item, label=str(item.label[column])) for item in _items(corpus, kind, column)]
        return clips, classes or tuple(sorted({clip.label for clip in clips}))

    return ask


def _key(corpus: Corpus, left_out: Counter[str]) -> Asked:
    items = _items(corpus, "mix", "key")
    known = [item for item in items if item.label["key"] != UNKNOWN_KEY]
    left_out["key unknown"] += len(items) - len(known)
    return [replace(item, label=KEYS[item.label["key"]]) for item in known], KEYS


def _technique(corpus: Corpus, left_out: Counter[str]) -> Asked:
    """Ask performers who are held out in the test split, and only there."""
    held_out = {one.name for one in PERFORMERS if one.held_out}
    items = _items(corpus, "phrase", "technique", "performer")
    asked = [item for item in items if (item.label["performer"] in held_out) == (item.split == "test")]
    return [replace(item, label=item.label["technique"]) for item in asked], TECHNIQUES


def _tags(*columns: str, top: int | None = None) -> Question:
    """Ask which tags hold, of those that are common enough; of these only the ``top`` commonest in training.

    A tag is common enough with a few clips for it and against it in every split. Programs are asked by their names.
    """

    def ask(corpus: Corpus, left_out: Counter[str]) -> Asked:
        from pretty_midi import program_to_instrument_name

        items = []
        for item in _items(corpus, "mix", *columns):
            programs = [program_to_instrument_name(program).lower() for program in item.label.get("programs", ())]
            others = (tag for name in columns if name != "programs" for tag in item.label[name])
            items.append(replace(item, label={*programs, *others}))
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for item in items:
            counts[item.split].update(item.label)
        sizes = Counter(item.split for item in items)
        fewest = {split: max(_FEWEST_CLIPS, _FEWEST_SHARE * sizes[split]) for split in SPLITS}
        common = [
            tag
            for tag in counts["train"]
            if all(fewest[split] <= counts[split][tag] <= sizes[split] - fewest[split] for split in SPLITS)
        ]
        if not common:
            raise MertError(
                f"no tag of {', '.join(columns)} is common enough in {corpus.folder}: each split must have "
                f"{_FEWEST_CLIPS} clips with it and without it. Ask for more (probe_set.mixes in params.yaml)."
            )
        classes = tuple(sorted(sorted(common, key=lambda tag: (-counts["train"][tag], tag))[:top]))
        return [replace(item, label=tuple(tag for tag in classes if tag in item.label)) for item in items], classes

    return ask


def _descriptors(corpus: Corpus, left_out: Counter[str]) -> Asked:
    items = _items(corpus, "mix", *DESCRIPTORS)
    return [replace(item, label=tuple(float(item.label[name]) for name in DESCRIPTORS)) for item in items], DESCRIPTORS


def _beats(corpus: Corpus, left_out: Counter[str]) -> Asked:
    table = corpus.beats()
    seconds: dict[str, list[float]] = defaultdict(list)
    for track_id, second in zip(table["track_id"].to_pylist(), table["seconds"].to_pylist(), strict=True):
        seconds[track_id].append(second)
    items = _items(corpus, "rhythm")
    return [replace(item, label=np.array(seconds[item.clip_id], np.float64)) for item in items], ()


def _stems(corpus: Corpus, left_out: Counter[str]) -> Asked:
    stems: dict[str, dict[str, Sound]] = defaultdict(dict)
    for role in ROLES:
        for item in _items(corpus, f"stem:{role}", "mix"):
            stems[item.label["mix"]][role] = item.sound
    mixes = [replace(item, label=stems[item.clip_id]) for item in _items(corpus, "stem:mix")]
    whole = [mix for mix in mixes if len(mix.label) == len(ROLES)]
    left_out["stem missing"] += len(mixes) - len(whole)
    return whole, ROLES


_QUESTIONS: dict[str, Question] = {
    "mtt": _tags("programs"),
    "gs_key": _key,
    "gtzan_genre": _single("mix", "composer"),
    "gtzan_rhythm": _beats,
    "emo": _descriptors,
    "nsynth_instrument": _single("note", "family", NOTE_FAMILIES),
    "nsynth_pitch": _single("note", "pitch", tuple(map(str, range(NOTE_LOWEST, NOTE_HIGHEST + 1)))),
    "vocalset_technique": _technique,
    "vocalset_singer": _single("phrase", "performer", tuple(one.name for one in PERFORMERS)),
    "mtg_instrument": _tags("families"),
    "mtg_mood": _tags("moods"),
    "mtg_genre": _tags("genres"),
    "mtg_top50": _tags("programs", "families", "moods", "genres", top=_TOP),
    "musdb18": _stems,
}
"""By the names of the fourteen tasks, whose proxies they are."""


class Demo(ClipSource):
    """The probe set that `mert probe-set` makes, split by piece: one question per task, by the name of the task."""

    name = "demo"
    questions: tuple[str, ...] = tuple(_QUESTIONS)
    remedy = "ask for more (probe_set in params.yaml)"

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> Asked:
        return _QUESTIONS[question](Corpus.open(folder), left_out)
