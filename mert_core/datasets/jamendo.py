"""MTG-Jamendo: 55,525 tracks with tags in a fixed division without common artists (Bogdanov et al. 2019)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Survey
from mert_core.datasets.reading import EMPTY, lack, read_text, usable
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError
from mert_core.files import sha256_file

TAGS = {"instrument": 40, "moodtheme": 56, "genre": 87, "top50tags": 50}
"""Question → number of its tags in the official division."""

_LABELS = ("data/splits/split-0", "mtg-jamendo-dataset/data/splits/split-0", "splits/split-0", "split-0", ".")
_AUDIO = (
    "raw_30s/audio",
    "raw_30s/audio-low",
    "raw_30s/audio_low",
    "raw_30s",
    "audio",
    "audio-low",
    "audio_low",
    "autotagging_moodtheme/audio",
    "autotagging_moodtheme/audio-low",
    ".",
)
_LOW = ".low.mp3"  # how low-quality copies end
_FILES: dict[Split, str] = {"train": "train", "valid": "validation", "test": "test"}
_KINDS = {"instrument": "instrument---", "moodtheme": "mood/theme---", "genre": "genre---"}  # how tags begin
_HEADER = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")


@dataclass(frozen=True)
class _JamendoTrack:
    """A row of a label file. ``path`` is that of the mp3 at 320 kbit/s, such as ``48/948.mp3``."""

    split: Split
    track_id: str
    artist: str
    path: str
    tags: tuple[str, ...]


class MtgJamendo(Dataset):
    """Adapter of the set's repository (labels of split 0) and of its mp3s, at 320 kbit/s or in the low-quality copy.

    Labels are looked for in ``data/splits/split-0`` of the folder, then of ``mtg-jamendo-dataset`` in it, then in
    ``splits/split-0``, ``split-0`` and the folder itself. Sound is taken from the first of these that has any mp3,
    so that qualities are never mixed: ``raw_30s/audio``, ``raw_30s/audio-low``, ``raw_30s``, ``audio``,
    ``audio-low``, ``autotagging_moodtheme/audio``, ``autotagging_moodtheme/audio-low`` (also with ``_low``) and the
    folder itself, as ``00/1234.mp3``, ``00/1234.low.mp3``, or without the folder ``00``.
    """

    name = "mtg_jamendo"
    title = "MTG-Jamendo"
    licence = "metadata CC BY-NC-SA 4.0; each track its own Creative Commons licence (audio_licenses.txt)"
    source = "https://github.com/MTG/mtg-jamendo-dataset, Bogdanov et al., ML4MD at ICML 2019"
    questions: tuple[str, ...] = tuple(TAGS)

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count tracks and tags of each question; without ``quick`` compare the mp3s with the published SHA-256."""
        labels = {name: _labels_folder(folder, name) for name in self.questions}
        if not any(labels.values()):
            return Survey("missing", notes=(_no_labels(folder, self.questions[0]),))
        root, there = _audio(folder)
        counts: dict[str, tuple[int, int]] = {}
        notes = [] if there else [f"No mp3 in {folder}: looked in {', '.join(_AUDIO)}."]
        used: dict[str, str] = {}  # file → why it cannot be used, or nothing
        for question, labels_folder in labels.items():
            if labels_folder is None:
                notes.append(_no_labels(folder, question))
                continue
            tracks = list(_read(labels_folder, question))
            names = [name for track in tracks if (name := _find(track.path, there))]
            used |= {name: lack(root / name) for name in names if name not in used}
            counts[f"{question} tracks"] = (sum(not used[name] for name in names), len(tracks))
            counts[f"{question} tags"] = (len({tag for track in tracks for tag in track.tags}), TAGS[question])
        if there and any(count < total for what, (count, total) in counts.items() if what.endswith("tracks")):
            notes.append(f"mp3s are missing in {root}; fetch them with the repository's scripts/download/download.py.")
        if empty := sorted(name for name, reason in used.items() if reason == EMPTY):
            notes.append(f"{len(empty)} mp3s have no bytes, such as {empty[0]}; download them again.")
        sums = {} if quick else _published(one.parent.parent for one in labels.values() if one)
        if not quick and not sums:
            notes.append("The repository's data/download holds no SHA-256 sums to compare with.")
        if damaged := _differing(root, sorted(name for name, reason in used.items() if not reason), sums):
            notes.append(
                f"{len(damaged)} mp3s differ from their published SHA-256, such as {damaged[0]}; download them again."
            )
        return Survey.of(counts, notes, len(damaged) + len(empty), usable=all(labels.values()))

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the tracks of one kind of tags. Tags are as the files have them, such as ``instrument---piano``."""
        labels_folder = _labels_folder(folder, question)
        if labels_folder is None:
            raise MertError(_no_labels(folder, question))
        root, there = _audio(folder)
        clips: list[Clip] = []
        tags: set[str] = set()
        for track in _read(labels_folder, question):
            tags.update(track.tags)
            path = root / (_find(track.path, there) or track.path)
            if usable(path, left_out):
                clips.append(Clip(track.track_id, track.split, FileSound(path), track.tags, track.artist))
        return clips, tuple(sorted(tags))


def _labels_folder(folder: Path, question: str) -> Path | None:
    """Return the first folder that has the label files of a question."""
    names = [f"autotagging_{question}-{part}.tsv" for part in _FILES.values()]
    folders = (folder / name for name in _LABELS)
    return next((labels for labels in folders if all((labels / name).is_file() for name in names)), None)


def _no_labels(folder: Path, question: str) -> str:
    return (
        f"{folder} has no autotagging_{question}-train.tsv, …-validation.tsv and …-test.tsv; looked in "
        f"{', '.join(_LABELS)}. Clone https://github.com/MTG/mtg-jamendo-dataset there."
    )


def _read(labels_folder: Path, question: str) -> Iterator[_JamendoTrack]:
    """Yield the tracks of a question's label files; a row has one field more for each further tag."""
    kinds = (_KINDS[question],) if question in _KINDS else tuple(_KINDS.values())
    columns = f"{' '.join(_HEADER)}, separated by tabs"
    for split, part in _FILES.items():
        path = labels_folder / f"autotagging_{question}-{part}.tsv"
        header, *lines = read_text(path, f"MTG-Jamendo's tracks and tags: {columns}").splitlines() or ["nothing"]
        if tuple(header.split("\t")) != _HEADER:
            raise MertError(f"{path}: found the header {header[:80]!r}, expected {columns}")
        for number, line in enumerate(lines, start=2):
            fields = line.split("\t")
            tags = tuple(fields[len(_HEADER) - 1 :])
            if not tags or not all(tag.startswith(kinds) for tag in tags):
                raise MertError(
                    f"{path}, line {number}: found {line[:100]!r}; expected five fields and then tags that begin with "
                    f"{' or '.join(kinds)}. Take the file from the set's repository again."
                )
            yield _JamendoTrack(split, fields[0], fields[1], fields[3], tags)


def _audio(folder: Path) -> tuple[Path, frozenset[str]]:
    """Return the first place with mp3s, and those of one quality there, relative to it: low only without others."""
    for name in _AUDIO:
        root = folder / name
        if root.is_dir() and (there := frozenset(_listed(root))):
            return root, frozenset(name for name in there if not name.endswith(_LOW)) or there
    return folder, frozenset()


def _listed(root: Path) -> Iterator[str]:
    """Yield the mp3s of a folder and of its folders 00 to 99: listing is quicker than asking for each of 55,525."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.endswith(".mp3"):
                yield entry.name
            elif len(entry.name) == 2 and entry.name.isdigit() and entry.is_dir():
                with os.scandir(entry.path) as files:
                    yield from (f"{entry.name}/{file.name}" for file in files if file.name.endswith(".mp3"))


def _find(path: str, there: frozenset[str]) -> str:
    """Return which of the files is a track's, or nothing."""
    low = path.removesuffix(".mp3") + _LOW
    names = (path, low, PurePosixPath(path).name, PurePosixPath(low).name)
    return next((name for name in names if name in there), "")


def _published(data: Iterable[Path]) -> dict[str, str]:
    """Return the checksums in ``download`` of the repository's data, by the file's name without its folder."""
    published: dict[str, str] = {}
    for path in sorted({path for folder in data for path in folder.glob("download/*_audio*_sha256_tracks.txt")}):
        for line in read_text(path, "a SHA-256 and an mp3's path in every line").splitlines():
            content, _, name = line.partition(" ")
            published[PurePosixPath(name.strip()).name] = content
    return published


def _differing(root: Path, names: Iterable[str], published: Mapping[str, str]) -> list[str]:
    """Return the files that differ from their published checksums, as far as there are any."""
    known = [(name, published[base]) for name in names if (base := PurePosixPath(name).name) in published]
    listed = tqdm(known, desc="checksums", unit="file", disable=None)
    return [name for name, content in listed if sha256_file(root / name) != content]
