"""GTZAN: excerpts of 30 s of ten genres, on the fault-filtered division, and their beats.

Tzanetakis and Cook, 2002.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from mert_core.datasets.base import SPLITS, Clip, Dataset, Survey
from mert_core.datasets.reading import count_sound, find_audio, lack, number, read_text
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
LIST = "{}_filtered.txt"
LISTED = 930
DAMAGED = "jazz.00054"
"""Cannot be decoded in the copy that most have (Kaggle's); MARBLE leaves it out, so it is left out of every copy."""
DAMAGED_COPY, NO_BEATS = "damaged in the common copy", "no beats annotated"

_LISTS = "https://github.com/coreyker/dnn-mgr/tree/master/gtzan"
_BEATS = "http://anasynth.ircam.fr/home/media/GTZAN-rhythm"
_AUDIO = ("genres", "genres_original", "Data/genres_original", "gtzan_genre/genres", ".")
_SUFFIXES = (".wav", ".au")
_BEAT_FILES = ("GTZAN-Rhythm*/**/*.jams", "jams/*.jams", "gtzan_tempo_beat*/**/*.beats", "beats/*.beats")
_CLIP = re.compile(r"(?:gtzan[._])?([a-z]+)[._](\d{5})\b")


class Gtzan(Dataset):
    """GTZAN on the division that Sturm's list of faults was taken out of (Kereliuk et al., 2015): 443, 197, 290 clips.

    Questions: ``genre``, and ``rhythm`` by GTZAN-Rhythm v2 (its jams, or text files with a beat a line).
    """

    name = "gtzan"
    title = "GTZAN"
    licence = "none stated; for research"
    source = (
        "sound: http://marsyas.info/downloads/datasets.html or Kaggle's andradaolteanu/"
        f"gtzan-dataset-music-genre-classification; lists: {_LISTS}; beats: {_BEATS}; Tzanetakis and Cook, 2002"
    )
    questions: tuple[str, ...] = ("genre", "rhythm")

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count lists, clips and beats. No checksum of single files is published, so ``quick`` makes no difference."""
        lists = [folder / LIST.format(split) for split in SPLITS]
        counts = {"lists": (sum(path.is_file() for path in lists), len(lists))}
        if counts["lists"][0] < len(lists):
            names = ", ".join(path.name for path in lists if not path.is_file())
            return Survey("missing", counts, (f"{names} not in {folder}; take the lists from {_LISTS}.",))
        wanted = [clip_id for split in SPLITS for clip_id in _read_list(folder, split) if clip_id != DAMAGED]
        present, empty = count_sound(_audio(folder, clip_id) for clip_id in wanted)
        annotated = _beat_files(folder)
        expected = LISTED - 1
        counts |= {"clips": (present, expected), "beats": (sum(clip_id in annotated for clip_id in wanted), expected)}
        notes = [f"{empty} clip(s) have no bytes; unpack the archive again."] if empty else []
        if present + empty < expected:
            notes.append("clips are missing; the genres' folders belong into the folder genres.")
        if counts["beats"][0] < expected:
            notes.append(f"beats are missing, which only the rhythm needs; take GTZAN-Rhythm v2 from {_BEATS}.")
        return Survey.of(counts, notes, empty)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the listed clips with their genre, or the seconds of their beats."""
        beats = _beat_files(folder) if question == "rhythm" else {}
        if question == "rhythm" and not beats:
            raise MertError(f"{folder} has no GTZAN-Rhythm*/jams/*.jams and no beats/*.beats; take v2 from {_BEATS}")
        clips = []
        for split in SPLITS:
            for clip_id in _read_list(folder, split):
                path = _audio(folder, clip_id)
                if reason := DAMAGED_COPY if clip_id == DAMAGED else lack(path):
                    left_out[reason] += 1
                    continue
                label = clip_id.partition(".")[0] if question == "genre" else _beats(beats.get(clip_id), path)
                if not len(label):
                    left_out[NO_BEATS] += 1
                    continue
                clips.append(Clip(clip_id, split, FileSound(path), label))
        return clips, GENRES if question == "genre" else ()


def _read_list(folder: Path, split: str) -> list[str]:
    """Return ids such as ``blues.00029`` from a list of paths such as ``blues/blues.00029.wav``."""
    path = folder / LIST.format(split)
    clip_ids = []
    for line in read_text(path, f"the fault-filtered list of {_LISTS}").split():
        match = _CLIP.match(line.rpartition("/")[2])
        if not match or match[1] not in GENRES:
            raise MertError(f"{path} has the line {line!r}; expected such as blues/blues.00029.wav, as in {_LISTS}")
        clip_ids.append(f"{match[1]}.{match[2]}")
    return clip_ids


def _audio(folder: Path, clip_id: str) -> Path:
    genre = clip_id.partition(".")[0]
    return find_audio([folder / name / genre for name in _AUDIO], [clip_id], _SUFFIXES)


def _beat_files(folder: Path) -> dict[str, Path]:
    """Return the file with the beats by clip; the authors' jams come first."""
    files: dict[str, Path] = {}
    for pattern in _BEAT_FILES:
        for path in sorted(folder.glob(pattern)):
            if match := _CLIP.match(path.name):
                files.setdefault(f"{match[1]}.{match[2]}", path)
    return files


def _beats(path: Path | None, audio: Path) -> NDArray[np.float64]:
    """Return the seconds of the beats, rising; some files go on after the sound has ended, which is cut."""
    if path is None:
        return np.empty(0)
    if path.suffix == ".jams":
        times = _jams_beats(path)
    else:
        lines = read_text(path, "a beat a line, seconds first").splitlines()
        times = [number(line.split()[0], path, "the time of a beat") for line in lines if line.strip()]
    try:
        seconds = soundfile.info(audio).duration
    except soundfile.LibsndfileError:  # decoding it will say what is wrong
        seconds = np.inf
    beats = np.unique(np.array(times, dtype=np.float64))
    return beats[(beats >= 0) & (beats < seconds)]


def _jams_beats(path: Path) -> list[float]:
    what = "a JAMS file of GTZAN-Rhythm v2"
    try:
        annotations = json.loads(read_text(path, what))["annotations"]
        return [
            number(str(beat["time"]), path, "the time of a beat")
            for annotation in annotations
            if annotation["namespace"] == "beat" and annotation["sandbox"]["annotation_type"] == "beat"
            for beat in annotation["data"]
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise MertError(
            f"{path}: {type(error).__name__}: {error}; expected {what}, with beats that have a time"
        ) from error
