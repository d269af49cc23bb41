"""VocalSet: singers and their techniques, recordings without their silence (Wilkins et al., ISMIR 2018)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.decode import SILENCE_RANGE
from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Sound, Survey
from mert_core.datasets.reading import EMPTY, lack
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError
from mert_core.files import sha256_file

THRESHOLD_DB, WINDOW_SECONDS, PAUSE_SECONDS = 40.0, 0.02, 0.3
"""What counts as silence. The sound is looked at in windows side by side. A window is quiet whose mean power lies more
than the threshold below that of the loudest one. All quiet windows before the first and after the last loud one are
taken out, and those between two loud ones where they make a pause of that length: articulation stays as it was sung."""


def sounding(waveform: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which samples of a waveform (samples,) at 24 kHz are kept, (samples,); none if it is silent throughout."""
    if not len(waveform) or np.ptp(waveform) < SILENCE_RANGE:
        return np.zeros(len(waveform), dtype=np.bool_)
    starts = np.arange(0, len(waveform), round(WINDOW_SECONDS * SAMPLE_RATE))
    lengths = np.diff(starts, append=len(waveform))
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / lengths
    loud = np.flatnonzero(power >= power.max() * 10.0 ** (-THRESHOLD_DB / 10.0))
    kept = np.zeros(len(starts), dtype=np.bool_)
    kept[loud[0] : loud[-1] + 1] = True
    for pause in np.flatnonzero(np.diff(loud) > round(PAUSE_SECONDS / WINDOW_SECONDS)):
        kept[loud[pause] + 1 : loud[pause + 1]] = False
    return np.repeat(kept, lengths)


@dataclass(frozen=True)
class Trimmed:
    """A sound without its silence."""

    sound: Sound

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the sound's identity and what counts as silence."""
        rule = f"threshold_db={THRESHOLD_DB}, window_seconds={WINDOW_SECONDS}, pause_seconds={PAUSE_SECONDS}"
        return hashlib.sha256(f"{self.sound.identity} without silence: SilenceGate({rule})".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz without silence, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded, or is silent from end to end. `channels` raises it, too.
        """
        return _trim(self.sound.waveform()[None])[0]

    def channels(self) -> NDArray[np.float32]:
        """Return all channels at 24 kHz, (channels, samples), without what is silence in their mean."""
        return _trim(self.sound.channels())


def _trim(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    kept = sounding(channels.mean(axis=0, dtype=np.float32))
    if not kept.any():
        raise UnusableAudio("silent", "nothing is left when silence is taken out")
    return channels[:, kept]


SINGERS = tuple(f"f{number}" for number in range(1, 10)) + tuple(f"m{number}" for number in range(1, 12))

TECHNIQUES = (
    "belt",
    "breathy",
    "inhaled",
    "lip_trill",
    "spoken",
    "straight",
    "trill",
    "trillo",
    "vibrato",
    "vocal_fry",
)
"""What is asked for; `FURTHER_TECHNIQUES` are asked for their singer only."""

FURTHER_TECHNIQUES = ("fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")

TEST_SINGERS = frozenset({"f2", "f8", "m3", "m5", "m10"})
"""Of the question of technique: the set's own ``test_singers_technique.txt``."""

VALID_SINGERS = frozenset({"f1", "f6", "f9", "m2", "m4", "m7"})
"""Of the question of technique, ours: of the other fifteen, the three women and three men of whose names the SHA-256
is lowest. MARBLE draws two fifths of these singers' recordings, so that validation hears singers of the training."""

_ROOTS = ("FULL", "data_by_singer", "VocalSet1-2/data_by_singer", "VocalSet11/FULL", "VocalSet/FULL", ".")
_FOLDER = re.compile(r"(female|male|f|m)(\d+)")  # of a singer
_PREFIX = re.compile(r"([fm]\d+)_")  # of a file
_COPY = re.compile(r"\(\d+\)$")
_STRAY = frozenset({"caro_vibrato", "dona_vibrato", "row_vibrato", "slow_vibrato_arps"})


@dataclass(frozen=True)
class _Recording:
    """A file that can be used: ``singer/context/technique/name.wav`` below the root."""

    path: Path
    singer: str
    technique: str
    clip_id: str

    def clip(self, split: Split, label: str, artist: str = "") -> Clip:
        return Clip(self.clip_id, split, Trimmed(FileSound(self.path)), label, artist)


class VocalSet(Dataset):
    """Adapter of VocalSet as version 1.1 (``FULL``) and 1.2 (``data_by_singer``) unpack it."""

    name = "vocalset"
    title = "VocalSet"
    licence = "CC BY 4.0"
    source = "https://zenodo.org/records/1193957, Wilkins, Seetharaman, Wahl, Pardo: VocalSet, ISMIR 2018"
    questions: tuple[str, ...] = ("technique", "singer")

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count singers and techniques; without ``quick`` look for copies, too. No checksums of files exist."""
        root = _root(folder)
        if root is None:
            return Survey("missing", notes=(_nothing(folder),))
        left_out = Counter[str]()
        recordings = _recordings(root, left_out, quick)
        counts = {
            "singers": (len({item.singer for item in recordings}), len(SINGERS)),
            "techniques": (len({item.technique for item in recordings}), len(TECHNIQUES + FURTHER_TECHNIQUES)),
        }
        notes = [f"{len(recordings)} recordings in {root}."]
        if absent := [singer for singer in SINGERS if singer not in {item.singer for item in recordings}]:
            notes.append(f"No recording of {', '.join(absent)}: unpack the archive again.")
        notes += [f"Left out: {count} ({reason})." for reason, count in sorted(left_out.items())]
        if empty := left_out[EMPTY]:
            notes.append(f"{empty} recording(s) have no bytes; unpack the archive again.")
        return Survey.of(counts, notes, empty)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return recordings without their silence, and their technique (of ten) or their singer."""
        root = _root(folder)
        if root is None:
            raise MertError(_nothing(folder))
        recordings = _recordings(root, left_out)
        clips: list[Clip] = []
        split: Split
        if question == "technique":  # by unseen singers
            for item in recordings:
                if item.technique in TECHNIQUES:
                    split = "valid" if item.singer in VALID_SINGERS else "train"
                    split = "test" if item.singer in TEST_SINGERS else split
                    clips.append(item.clip(split, item.technique, item.singer))
            return clips, TECHNIQUES
        # each singer's recordings 12:8:5, in the order of the SHA-256 of their names
        recordings.sort(key=lambda item: hashlib.sha256(item.clip_id.encode()).digest())
        totals, before = Counter(item.singer for item in recordings), Counter[str]()
        for item in recordings:
            share = (before[item.singer] + 0.5) / totals[item.singer] * 25
            before[item.singer] += 1
            clips.append(item.clip("train" if share < 12 else "valid" if share < 20 else "test", item.singer))
        return clips, SINGERS


def _root(folder: Path) -> Path | None:
    """Return the first place that has folders of singers."""
    for name in _ROOTS:
        root = folder / name
        if root.is_dir() and any(_singer(path) for path in root.iterdir()):
            return root
    return None


def _nothing(folder: Path) -> str:
    return (
        f"{folder} has no VocalSet: expected FULL/SINGER/CONTEXT/TECHNIQUE/*.wav (version 1.1) or data_by_singer/… "
        "(version 1.2) with singers female1 … male11. Unpack the archive there."
    )


def _singer(path: Path) -> str:
    """Return the singer of a folder by its name, or nothing."""
    match = _FOLDER.fullmatch(path.name)
    singer = match[1][0] + str(int(match[2])) if match else ""
    return singer if singer in SINGERS and path.is_dir() else ""


def _recordings(root: Path, left_out: Counter[str], quick: bool = False) -> list[_Recording]:
    """Return what can be used, sorted, and count the others by reason; ``quick`` does not compare bytes."""
    recordings: list[_Recording] = []
    for folder in sorted(root.iterdir()):
        if not (singer := _singer(folder)):
            continue
        for path in sorted(folder.glob("*/*/*.wav")):
            if path.name.startswith("."):  # what macOS leaves behind
                continue
            technique = path.parent.name
            if reason := _fault(path.stem, singer, technique) or lack(path):
                left_out[reason] += 1
            else:
                recordings.append(_Recording(path, singer, technique, path.relative_to(root).as_posix()))
    if quick:
        return recordings
    # files that equal an earlier one byte for byte; only files of equal size are read
    sizes = Counter(item.path.stat().st_size for item in recordings)
    seen: set[str] = set()
    different = []
    for item in recordings:
        content = sha256_file(item.path) if sizes[item.path.stat().st_size] > 1 else ""
        if content in seen:
            left_out["copy of another recording"] += 1
            continue
        seen.update([content] if content else [])
        different.append(item)
    return different


def _fault(name: str, singer: str, technique: str) -> str:
    """Return why a recording cannot be used, or nothing."""
    if technique not in TECHNIQUES + FURTHER_TECHNIQUES:
        return "unknown technique"  # such as ``vibrado`` of female2, which MARBLE does not take either
    if _COPY.search(name):
        return "copy of another recording"
    if name in _STRAY:
        return "not in the paper's table"  # as MARBLE has it
    prefix = _PREFIX.match(name)
    if prefix and prefix[1] != singer:
        return "folder and file name give different singers"  # ``male8/…/m9_caro_vibrato.wav``
    return ""
