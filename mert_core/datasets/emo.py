"""Emomusic, MediaEval 2013's "1000 songs": 744 excerpts of 45 s with the mean of listeners' valence and arousal.

Soleymani et al., CrowdMM 2013.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Survey
from mert_core.datasets.reading import count_sound, find_audio, lack, number, read_table
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

SONGS, RATINGS = "songs_info.csv", "static_annotations.csv"
CLIPS = 744
CLASSES = ("valence", "arousal")
NO_RATING = "no rating"

_SET = "Mediaeval 2013 set"
_SUFFIXES = (".mp3", ".wav")
_AUDIO = ("clips_45seconds", "clips_45sec/clips_45seconds", "clips_45sec")
_TENTHS = 10
_TRAIN_TENTHS = 8


class Emomusic(Dataset):
    """Emomusic as in jukemir and MARBLE: test is MediaEval 2013's evaluation set (125 songs).

    An artist's hash divides the development set (619 songs) 8 : 2 into train and valid. The labels are ratings from 1
    to 9 as published; R² does not change when they are scaled.
    """

    name = "emo"
    title = "Emomusic"
    licence = "music: Creative Commons, by song (Free Music Archive); annotations for research"
    source = "https://cvml.unige.ch/databases/emoMusic; Soleymani et al., CrowdMM 2013"
    questions: tuple[str, ...] = ("emotion",)

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count songs, ratings and clips. No checksum of single files is published: ``quick`` makes no difference."""
        tables = _tables(folder)
        if missing := [name for name in (SONGS, RATINGS) if not (tables / name).is_file()]:
            return Survey("missing", notes=(f"{', '.join(missing)} not in {folder}; unpack annotations.tar.gz there.",))
        songs, ratings = _songs(tables / SONGS), _ratings(tables / RATINGS)
        present, empty = count_sound(_audio(folder, song) for song in songs)
        rated = len(songs.keys() & ratings.keys())
        counts = {"clips": (present, CLIPS), "songs": (len(songs), CLIPS), "ratings": (rated, CLIPS)}
        notes = [f"{empty} clip(s) have no bytes; unpack clips_45sec.tar.gz again."] if empty else []
        if present + empty < CLIPS:
            notes.append("clips are missing; unpack clips_45sec.tar.gz into the folder.")
        return Survey.of(counts, notes, empty)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the clips with (valence, arousal). Artists are given where they decided about the split."""
        tables = _tables(folder)
        songs, ratings = _songs(tables / SONGS), _ratings(tables / RATINGS)
        clips = []
        for song, (artist, part) in songs.items():
            path = _audio(folder, song)
            if reason := lack(path) or ("" if song in ratings else NO_RATING):
                left_out[reason] += 1
                continue
            split: Split = "test"
            if part == "development":
                tenth = int(hashlib.sha1(artist.encode()).hexdigest(), 16) % _TENTHS
                split = "train" if tenth < _TRAIN_TENTHS else "valid"
            clips.append(Clip(f"{song:04d}", split, FileSound(path), ratings[song], "" if split == "test" else artist))
        return clips, CLASSES


def _tables(folder: Path) -> Path:
    return folder / "annotations" if (folder / "annotations" / SONGS).is_file() else folder


def _songs(path: Path) -> dict[int, tuple[str, str]]:
    """Return artist, in small ASCII letters, which is what is hashed, and part (development, evaluation) of a song."""
    what = f"Emomusic's {SONGS}, with song_id, Artist and {_SET}"
    songs = {}
    for row in read_table(path, ("song_id", "Artist", _SET), what):
        if row[_SET] not in ("development", "evaluation"):
            raise MertError(f"{path}: song {row['song_id']} is of the set {row[_SET]!r}; expected {what}")
        plain = [one for one in row["Artist"].lower() if one.isascii() and (one.isalpha() or one.isspace())]
        songs[_song(row["song_id"], path)] = " ".join("".join(plain).split()), row[_SET]
    return songs


def _ratings(path: Path) -> dict[int, tuple[float, float]]:
    names = tuple(f"mean_{name}" for name in CLASSES)
    rows = read_table(path, ("song_id", *names), f"Emomusic's {RATINGS}, with song_id, {names[1]}, {names[0]}")
    ratings = {}
    for row in rows:
        valence, arousal = (number(row[name], path, name) for name in names)
        ratings[_song(row["song_id"], path)] = valence, arousal
    return ratings


def _song(text: str, path: Path) -> int:
    if not text.isdecimal():
        raise MertError(f"{path}: song_id is {text!r}; expected a whole number")
    return int(text)


def _audio(folder: Path, song: int) -> Path:
    return find_audio([folder / name for name in _AUDIO], [str(song)], _SUFFIXES)
