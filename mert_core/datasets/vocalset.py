"""VocalSet: singers and their techniques, recordings without their silence (Wilkins et al., ISMIR 2018)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.decode import SILENCE_RANGE
from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Split
from mert_core.datasets.base import Clip, ClipSet, Sound, Survey
from mert_core.datasets.reading import EMPTY, check_question, clip_set, lack
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError
from mert_core.files import sha256_file


@dataclass(frozen=True)
class SilenceGate:
    """What counts as silence.

    The sound is looked at in windows side by side. A window is quiet whose mean power lies more than ``threshold_db``
    below that of the loudest one. All quiet windows before the first and after the last loud one are taken out, and
    those between two loud ones where they last ``pause_seconds`` or longer: articulation stays as it was sung.

    Attributes:
        threshold_db: decibels below the loudest window.
        window_seconds: length of a window.
        pause_seconds: the shortest silence that is taken out within the sound.
    """

    threshold_db: float = 40.0
    window_seconds: float = 0.02
    pause_seconds: float = 0.3


def sounding(waveform: NDArray[np.float32], gate: SilenceGate) -> NDArray[np.bool_]:
    """Return which samples are kept, (samples,); none of a waveform that is silent from end to end.

    Args:
        waveform: (samples,) at 24 kHz.
        gate: what counts as silence.
    """
    if not len(waveform) or np.ptp(waveform) < SILENCE_RANGE:
        return np.zeros(len(waveform), dtype=np.bool_)
    size = round(gate.window_seconds * SAMPLE_RATE)
    starts = np.arange(0, len(waveform), size)
    lengths = np.diff(starts, append=len(waveform))
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / lengths
    loud = power >= power.max() * 10.0 ** (-gate.threshold_db / 10.0)
    loud_windows = np.flatnonzero(loud)
    kept = np.zeros(len(starts), dtype=np.bool_)
    kept[loud_windows[0] : loud_windows[-1] + 1] = True
    pause = round(gate.pause_seconds / gate.window_seconds)
    for pause_start in np.flatnonzero(np.diff(loud_windows) > pause):
        kept[loud_windows[pause_start] + 1 : loud_windows[pause_start + 1]] = False
    return np.repeat(kept, lengths)


@dataclass(frozen=True)
class Trimmed:
    """A sound without its silence.

    Attributes:
        sound: as it was recorded.
        gate: what counts as silence.
    """

    sound: Sound
    gate: SilenceGate = SilenceGate()

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the sound's identity and the gate.

        Raises:
            UnusableAudio: the sound cannot be read.
        """
        return hashlib.sha256(f"{self.sound.identity} without silence: {self.gate}".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz without silence, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded, or is silent from end to end.
        """
        waveform = self.sound.waveform()
        return waveform[_some(sounding(waveform, self.gate))]

    def channels(self) -> NDArray[np.float32]:
        """Return all channels at 24 kHz, (channels, samples), without what is silence in their mean.

        Raises:
            UnusableAudio: it cannot be decoded, or is silent from end to end.
        """
        channels = self.sound.channels()
        return channels[:, _some(sounding(channels.mean(axis=0, dtype=np.float32), self.gate))]


def _some(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not kept.any():
        raise UnusableAudio("silent", "nothing is left when silence is taken out")
    return kept


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


class VocalSet:
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
        recordings, left_out = _recordings(root, quick)
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
        whole = not empty and all(count == total for count, total in counts.values())
        return Survey("complete" if whole else "incomplete", counts, tuple(notes), empty)

    def read(self, folder: Path, question: str) -> ClipSet:
        """Return recordings without their silence, and their technique (of ten) or their singer.

        Raises:
            MertError: there is no such question, the folder is not in VocalSet's layout, or a split has no recording.
        """
        check_question(self.name, self.questions, question)
        root = _root(folder)
        if root is None:
            raise MertError(_nothing(folder))
        recordings, left_out = _recordings(root)
        if question == "technique":
            clips = [
                Clip(item.clip_id, _split_of(item.singer), Trimmed(FileSound(item.path)), item.technique, item.singer)
                for item in recordings
                if item.technique in TECHNIQUES
            ]
            return clip_set(self.name, question, clips, TECHNIQUES, left_out, folder)
        splits = _within_singers(recordings)
        clips = [
            Clip(item.clip_id, splits[item.clip_id], Trimmed(FileSound(item.path)), item.singer) for item in recordings
        ]
        return clip_set(self.name, question, clips, SINGERS, left_out, folder)


def _split_of(singer: str) -> Split:
    if singer in TEST_SINGERS:
        return "test"
    return "valid" if singer in VALID_SINGERS else "train"


def _within_singers(recordings: Iterable[_Recording]) -> dict[str, Split]:
    """Divide each singer's recordings 12:8:5, in the order of the SHA-256 of their names."""
    of: defaultdict[str, list[str]] = defaultdict(list)
    for item in recordings:
        of[item.singer].append(item.clip_id)
    splits: dict[str, Split] = {}
    for names in of.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        for number, name in enumerate(names):
            share = (number + 0.5) / len(names) * 25
            splits[name] = "train" if share < 12 else "valid" if share < 20 else "test"
    return splits


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


def _recordings(root: Path, quick: bool = False) -> tuple[list[_Recording], Counter[str]]:
    """Return what can be used, sorted, and how many recordings cannot, by reason."""
    recordings: list[_Recording] = []
    left_out: Counter[str] = Counter()
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
    if not quick:
        copies = _copies(recordings)
        left_out.update({"copy of another recording": len(copies)} if copies else {})
        recordings = [item for item in recordings if item.path not in copies]
    return recordings, left_out


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


def _copies(recordings: Iterable[_Recording]) -> set[Path]:
    """Return the files that equal an earlier one byte for byte; only files of equal size are read."""
    sizes: defaultdict[int, list[Path]] = defaultdict(list)
    for item in recordings:
        sizes[item.path.stat().st_size].append(item.path)
    copies: set[Path] = set()
    for paths in sizes.values():
        seen: set[str] = set()
        for path in paths if len(paths) > 1 else ():
            content = sha256_file(path)
            if content in seen:
                copies.add(path)
            seen.add(content)
    return copies
