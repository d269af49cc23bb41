"""GiantSteps: excerpts of two minutes of electronic dance music with their key.

Knees et al., ISMIR 2015; Faraldo, 2017.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Survey
from mert_core.datasets.keys import KEYS, spell_key
from mert_core.datasets.reading import count_sound, find_audio, lack, md5, read_table, read_text, usable
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

TRAIN, TEST = "giantsteps-mtg-key-dataset", "giantsteps-key-dataset"
TRACKS = {TRAIN: 1486, TEST: 604}
_LABELS = {TRAIN: ("annotations/annotations.txt", "annotations/beatport_metadata.txt"), TEST: ("annotations/key",)}
SEVERAL_KEYS, NO_KEY, DOUBTFUL = "several keys", "no key", "key in doubt"

_SUFFIXES = (".mp3", ".wav")
_SURE = "2"
_HASH_RANGE, _TRAIN_RANGE = 116, 100  # of an artist's hash: jukemir's and MARBLE's, about 80/20 of the tracks


@dataclass(frozen=True)
class _KeyTrack:
    """A track with one key that is sure."""

    number: int
    key: str
    split: Split
    artist: str = ""


class GiantSteps(Dataset):
    """Train and valid from GiantSteps-MTG-keys, test is the GiantSteps key set.

    Of the former only tracks count that have one key, and whose annotators were sure of it (C is 2), as in Korzeniowski
    and Widmer (ISMIR 2018). An artist's hash decides between train and valid; who has worked with an artist of the
    validation split, directly or through others, is in it, too.
    """

    name = "giantsteps"
    title = "GiantSteps key"
    licence = "annotations: none stated; music: Beatport's previews, all rights reserved"
    source = (
        f"https://github.com/GiantSteps/{TRAIN} and https://github.com/GiantSteps/{TEST} (audio_dl.sh fetches the "
        "sound); Knees et al., ISMIR 2015; Faraldo, 2017"
    )
    questions: tuple[str, ...] = ("key",)

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count the tracks and, unless ``quick``, compare them with the MD5 sums that lie in the repositories."""
        counts, notes, damaged = {}, [], 0
        for part in (TRAIN, TEST):
            checkout = _find_part(folder, part)
            if checkout is None:
                notes.append(f"{folder / part} is not there; clone https://github.com/GiantSteps/{part}.")
                continue
            if absent := [name for name in _LABELS[part] if not (checkout / name).exists()]:
                notes.append(f"{checkout} lacks {', '.join(absent)}; check it out anew.")
                continue
            _TRACKS_OF[part](checkout, Counter())  # what cannot be read is refused
            sums = _by_number(checkout / "md5", ".md5")
            audio = {
                number: _audio(folder, checkout, number) for number in sums or _by_number(checkout / "annotations/key")
            }
            present, empty = count_sound(audio.values())
            counts[part] = present, TRACKS[part]
            wrong = [] if quick else _differing(audio, sums, part)
            if wrong:
                numbers = ", ".join(map(str, wrong[:5]))
                notes.append(f"{len(wrong)} of {part} differ from their MD5 sum, such as {numbers}; fetch them again.")
            if not quick and not sums:
                notes.append(f"{checkout / 'md5'} holds no sums to compare with.")
            if short := counts[part][1] - present:
                notes.append(f"{short} of {part} have no sound; its audio_dl.sh fetches it.")
            damaged += len(wrong) + empty
        if len(counts) < len(TRACKS):
            return Survey("missing", counts, tuple(notes), damaged)
        return Survey.of(counts, notes, damaged)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the tracks with their key, one of `KEYS`."""
        clips = []
        for part in (TRAIN, TEST):
            checkout = _find_part(folder, part)
            if checkout is None:
                raise MertError(
                    f"{folder / part} is not there; clone https://github.com/GiantSteps/{part} into {folder}"
                )
            for track in _TRACKS_OF[part](checkout, left_out):
                path = _audio(folder, checkout, track.number)
                if usable(path, left_out):
                    clips.append(Clip(f"{track.number:07d}", track.split, FileSound(path), track.key, track.artist))
        return clips, KEYS


def _train_tracks(checkout: Path, left_out: Counter[str]) -> list[_KeyTrack]:
    """Return the tracks of `TRAIN` that have a key, and count the others by reason; sound is not looked for."""
    annotations, metadata = (checkout / name for name in _LABELS[TRAIN])
    keys = read_table(annotations, ("ID", "MANUAL KEY", "C"), "a tab-separated table ID, MANUAL KEY, C", "\t")
    artists = {
        row["ID"]: [name.strip() for name in row["ARTIST"].split(",")]
        for row in read_table(metadata, ("ID", "ARTIST"), "a tab-separated table with ID and ARTIST", "\t")
    }
    valid = _valid_artists(artists)
    tracks = []
    for row in keys:
        text, number = row["MANUAL KEY"], row["ID"]
        if reason := _doubt(text, row["C"]):
            left_out[reason] += 1
            continue
        key = spell_key(text)
        if key is None or not number.isdecimal():
            raise MertError(f"{annotations}: track {number!r} has the key {text!r}; expected one such as 'D# minor'")
        if number not in artists:
            raise MertError(f"{metadata} has no row for track {number}, which {annotations.name} has; take both anew")
        split: Split = "valid" if valid & set(artists[number]) else "train"
        tracks.append(_KeyTrack(int(number), key, split, ", ".join(artists[number])))
    return tracks


def _test_tracks(checkout: Path, left_out: Counter[str]) -> list[_KeyTrack]:
    """Return the tracks of `TEST` that have a key, as `_train_tracks` does."""
    annotations = _by_number(checkout / _LABELS[TEST][0])
    if not annotations:
        raise MertError(f"{checkout / _LABELS[TEST][0]} holds no .key files; check out the repository {TEST} anew")
    tracks = []
    for number, path in annotations.items():
        text = read_text(path, "a key, such as 'D minor'").strip()
        key = spell_key(text)
        if key is None:
            if reason := _doubt(text, _SURE):
                left_out[reason] += 1
                continue
            raise MertError(f"{path} says {text!r}; expected a key, such as 'D minor'")
        tracks.append(_KeyTrack(number, key, "test"))
    return tracks


_TRACKS_OF = {TRAIN: _train_tracks, TEST: _test_tracks}


def _doubt(text: str, confidence: str) -> str:
    """Return why a track does not count, or nothing; texts may be ``C minor / F# minor``, ``A-A# minor``, ``-``."""
    if text in ("", "-"):
        return NO_KEY
    if "/" in text or "-" in text:
        return SEVERAL_KEYS
    return "" if confidence == _SURE else DOUBTFUL


def _valid_artists(artists: dict[str, list[str]]) -> set[str]:
    """Return who is in the validation split: by the hash, and all who have worked with them."""

    def hashed(artist: str) -> int:
        return int(hashlib.sha1(artist.lower().encode()).hexdigest(), 16) % _HASH_RANGE

    valid = {name for names in artists.values() for name in names if hashed(name) >= _TRAIN_RANGE}
    while True:
        joined = {name for names in artists.values() if valid.intersection(names) for name in names}
        if joined <= valid:
            return valid
        valid |= joined


def _find_part(folder: Path, part: str) -> Path | None:
    """Return the folder of one repository, cloned or unpacked (then its name ends in a branch or commit)."""
    folders = sorted(path for path in folder.glob(f"{part}*") if path.is_dir())
    return folders[0] if folders else None


def _by_number(folder: Path, suffix: str = ".key") -> dict[int, Path]:
    """Return files such as ``10089.LOFI.key`` by the track's number, which some repositories pad with zeros."""
    files = {path.name.partition(".")[0]: path for path in sorted(folder.glob(f"*{suffix}"))}
    return {int(number): path for number, path in files.items() if number.isdecimal()}


def _audio(folder: Path, checkout: Path, number: int) -> Path:
    """Return where a track's sound is or should be: its repository's ``audio``, or one for both, MARBLE's way."""
    folders, stems = (checkout / "audio", folder / "audio"), (f"{number}.LOFI", f"{number:07d}.LOFI")
    return find_audio(folders, stems, _SUFFIXES)


def _differing(audio: dict[int, Path], sums: dict[int, Path], part: str) -> list[int]:
    """Return the tracks whose mp3 differs from its MD5 sum, as far as there are any."""
    wrong = []
    for number, path in tqdm(audio.items(), desc=part, unit=" files", dynamic_ncols=True, leave=False):
        if lack(path) or path.suffix != ".mp3" or number not in sums:
            continue
        if read_text(sums[number], "an MD5 sum").split()[:1] != [md5(path)]:
            wrong.append(number)
    return wrong
