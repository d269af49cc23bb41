"""MUSDB18 and MUSDB18-HQ: 150 songs in four stems, stereo at 44.1 kHz (Rafii et al., doi 10.5281/zenodo.1117372)."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from mert_core.audio.decode import resample
from mert_core.audio.errors import UnusableAudio
from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Sound, Survey
from mert_core.datasets.reading import EMPTY, lack, md5
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

STEMS = ("vocals", "drums", "bass", "other")

TRACKS: dict[Split, int] = {"train": 86, "valid": 14, "test": 50}
"""Songs of the division that ``musdb`` makes: 14 named ones of the 100 in ``train`` are for validation."""

STREAMS = {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4}
"""Which stream of a ``.stem.mp4`` holds what."""

ARCHIVES = {"musdb18.zip": "af06762477334799bfc5abf237648207"}
"""MD5 of archives, as Zenodo states them (record 1117372)."""

_SUFFIX = ".stem.mp4"
_SLACK_SAMPLES = 2048  # two frames of AAC: what an encoder adds in front may be counted or not


@dataclass(frozen=True)
class StemSound:
    """One of the `STREAMS` of a ``.stem.mp4``, decoded by ``stempeg``, which ``musdb`` reads with."""

    path: Path
    stem: str

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the file's identity and the stem."""
        return hashlib.sha256(f"{FileSound(self.path).identity} stream {STREAMS[self.stem]}".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz, (samples,), as `channels` decodes them."""
        return self.channels().mean(axis=0, dtype=np.float32)

    def channels(self) -> NDArray[np.float32]:
        """Return both channels at 24 kHz, (2, samples).

        Raises:
            MertError: ffmpeg or ffprobe is not on the path, or ``musdb`` is not installed.
            UnusableAudio: it cannot be decoded.
        """
        if fault := _cannot_decode():
            raise MertError(fault)
        import ffmpeg
        import stempeg

        stream = STREAMS[self.stem]
        try:
            facts = stempeg.Info(str(self.path))
            expected, rate = facts.samples(stream), facts.sample_rate(stream)
            samples, _ = stempeg.read_stems(
                str(self.path), stem_id=stream, info=facts, sample_rate=rate, dtype=np.float32, always_3d=True
            )
        except ffmpeg.Error as error:
            # the end of the last line, which follows the file's path
            words = (error.stderr or b"").decode(errors="replace").strip().rpartition("\n")[2].rpartition(": ")[2]
            raise UnusableAudio("not audio", f"ffprobe refuses it: {words}") from error
        except (Warning, RuntimeError, LookupError, ValueError) as error:  # what stempeg raises
            raise UnusableAudio("damaged", f"no stem {self.stem}: {error}") from error
        channels: NDArray[np.float32] = np.ascontiguousarray(samples[0].T)
        if channels.shape[1] + _SLACK_SAMPLES < expected:  # ffmpeg leaves out what it cannot decode
            length = f"{channels.shape[1] / rate:.2f} of {expected / rate:.2f} s"
            raise UnusableAudio("truncated", f"cut off or damaged: {length} decode of stem {self.stem}")
        return np.stack([resample(channel, rate) for channel in channels])


class Musdb18(Dataset):
    """Adapter of MUSDB18 (``train/SONG.stem.mp4``) and MUSDB18-HQ (``train/SONG/{mixture,vocals,…}.wav``).

    Where a song lies there in both forms, the wav files are taken if all of them are there.
    """

    name = "musdb18"
    title = "MUSDB18"
    licence = "for academic purposes only; each song has its own licence, most of them non-commercial"
    source = "https://zenodo.org/records/1117372 (stems), https://zenodo.org/records/3338373 (HQ, wav); on request"
    questions: tuple[str, ...] = ("stems",)

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count the songs that have all stems; without ``quick`` compare an archive that lies there with its MD5."""
        if fault := _no_layout(folder):
            return Survey("missing", notes=(fault,))
        songs = _songs(folder)
        notes = [song.note for song in songs if song.lack]
        validation, totals = frozenset[str](), dict(TRACKS)
        try:
            validation = _validation_names()
        except MertError as error:  # then the validation songs count as songs for training
            notes.append(str(error))
            totals["train"] += totals.pop("valid")
        counts = Counter(song.split(validation) for song in songs if not song.lack)
        if any(song.is_stems for song in songs) and (fault := _cannot_decode()):
            notes.append(fault)
        archives = [] if quick else _damaged_archives(folder)
        notes += archives
        damaged = len(archives) + sum(len(song.empty) for song in songs)
        by_split = {f"{split} songs": (counts[split], total) for split, total in totals.items()}
        return Survey.of(by_split, notes, damaged, usable=not notes)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return the songs with their mixture and the sound of each stem, stereo by `Sound.channels`.

        Raises:
            MertError: the folders are missing, ``musdb`` is not installed, or there are stems files and no ffmpeg to
                decode them.
        """
        if fault := _no_layout(folder):
            raise MertError(fault)
        validation = _validation_names()
        songs = _songs(folder)
        if any(song.is_stems for song in songs) and (fault := _cannot_decode()):
            raise MertError(fault)
        left_out.update(song.lack for song in songs if song.lack)
        clips = [
            Clip(song.name, song.split(validation), song.sounds["mixture"], {stem: song.sounds[stem] for stem in STEMS})
            for song in songs
            if not song.lack
        ]
        return clips, STEMS


@dataclass(frozen=True)
class _Song:
    """A song of one of the set's two parts."""

    part: Split
    name: str
    sounds: Mapping[str, Sound]  # of the mixture and the stems, as far as they are there
    is_stems: bool  # in one file that ffmpeg has to decode
    empty: tuple[str, ...]  # names of its files that have no bytes

    @property
    def lack(self) -> str:
        """Why it cannot be used, or nothing."""
        absent = [name for name in ("mixture", *STEMS) if name not in self.sounds]
        return EMPTY if self.empty else f"no {', '.join(absent)}" if absent else ""

    @property
    def note(self) -> str:
        """What to say of a song that cannot be used."""
        if self.empty:
            return f"{self.part}/{self.name}: {', '.join(self.empty)} without bytes: left out; unpack it again."
        return f"{self.part}/{self.name} has {self.lack}: left out."

    def split(self, validation: frozenset[str]) -> Split:
        return "valid" if self.part == "train" and self.name in validation else self.part


def _songs(folder: Path) -> list[_Song]:
    """Return the songs of both parts, sorted, whether or not they have all stems."""
    songs: list[_Song] = []
    parts: tuple[Split, ...] = ("train", "test")
    for part in parts:
        files: dict[str, _Song] = {}
        for song in filter(None, (_song(part, path) for path in (folder / part).iterdir())):
            forms = (song, files.get(song.name, song))
            files[song.name] = max(forms, key=lambda form: (not form.lack, not form.is_stems))
        songs += (files[name] for name in sorted(files))
    return songs


def _song(part: Split, path: Path) -> _Song | None:
    """Return the song of a folder with any of the wav files, or of a stems file; nothing where it is neither."""
    if path.name.startswith("."):
        return None
    if path.is_dir():
        lacks = {name: lack(path / f"{name}.wav") for name in STREAMS}
        sounds: dict[str, Sound] = {name: FileSound(path / f"{name}.wav") for name in STREAMS if not lacks[name]}
        empty = tuple(f"{name}.wav" for name in STREAMS if lacks[name] == EMPTY)
        return _Song(part, path.name, sounds, False, empty) if sounds or empty else None
    if not path.name.endswith(_SUFFIX):
        return None
    name, reason = path.name.removesuffix(_SUFFIX), lack(path)
    streams: dict[str, Sound] = {} if reason else {stem: StemSound(path, stem) for stem in STREAMS}
    return _Song(part, name, streams, True, (path.name,) if reason == EMPTY else ())


def _validation_names() -> frozenset[str]:
    """Return the songs that ``musdb`` keeps for validation.

    They are read from the package's file: importing the package asks for ffmpeg, which wav files do not need.
    """
    spec = importlib.util.find_spec("musdb")
    if spec is None or not spec.submodule_search_locations:
        raise MertError(
            "MUSDB18's division into 86 songs for training and 14 for validation is kept in the package musdb, which "
            "is not installed: pip install musdb"
        )
    path = Path(spec.submodule_search_locations[0]) / "configs" / "mus.yaml"
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8"))["validation_tracks"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise MertError(
            f"{path} has no list validation_tracks ({error!r}); expected musdb 0.4: pip install musdb==0.4.3"
        ) from error
    return frozenset(names)


def _cannot_decode() -> str:
    """Return why stems files cannot be decoded here, or nothing."""
    if lacking := [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]:
        return (
            f"{' and '.join(lacking)} cannot be found on the path; MUSDB18's .stem.mp4 files need it. Install ffmpeg, "
            "or use MUSDB18-HQ, whose wav files need nothing."
        )
    if importlib.util.find_spec("stempeg") is None:
        return "MUSDB18's .stem.mp4 files are read with the package stempeg, which is not installed: pip install musdb"
    return ""


def _damaged_archives(folder: Path) -> list[str]:
    """Return what to say of archives in or beside the folder that differ from what was published."""
    notes = []
    for path in (parent / name for name in ARCHIVES for parent in (folder, folder.parent)):
        if path.is_file() and (content := md5(path)) != ARCHIVES[path.name]:
            notes.append(f"{path} has the MD5 {content}, published is {ARCHIVES[path.name]}: download it again.")
    return notes


def _no_layout(folder: Path) -> str:
    """Return what to say of a folder that lacks one of the set's two parts, or nothing."""
    lacking = [name for name in ("train", "test") if not (folder / name).is_dir()]
    if not lacking:
        return ""
    return (
        f"{folder} has no {' and no '.join(lacking)}; expected train/SONG.stem.mp4 and test/SONG.stem.mp4 (MUSDB18), "
        "or train/SONG/ and test/SONG/ with mixture.wav, vocals.wav, drums.wav, bass.wav and other.wav (MUSDB18-HQ)."
    )
