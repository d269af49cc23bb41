"""Embeddings on disk: shards of some hundred sounds each, and an index by what was embedded.

A shard is two files. ``NAME.npy`` holds float16 (rows, states, width); ``NAME.json``, written last, says which rows are
whose, and their checksum. The name follows from the content, and nothing is ever changed: processes that write at once
do not disturb each other, and a shard that a killed process did not finish does not exist.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE, seconds_to_samples
from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_file, sha256_json, write_json
from mert_core.probing.tasks import Chunking

MIN_SAMPLES = 1200
"""The shortest window, 50 ms: the half window of mel statistics, and three frames of the student. It is the same for
all encoders, so that no clip is left out for one of them only."""


@dataclass(frozen=True)
class Windows:
    """How one sound is cut. Equal ones are equal cuts, whatever `Chunking` they come from.

    Attributes:
        window_samples: of each window but the last, which may be shorter; of the only window, if there is one.
        used_samples: where the last window ends.
    """

    window_samples: int
    used_samples: int

    def __len__(self) -> int:
        return -(-self.used_samples // self.window_samples)

    def bounds(self) -> NDArray[np.int64]:
        """Return where each window begins and ends in samples (windows, 2)."""
        starts = np.arange(len(self), dtype=np.int64) * self.window_samples
        return np.stack([starts, np.minimum(starts + self.window_samples, self.used_samples)], axis=1)


def windows_of(samples: int, chunking: Chunking) -> Windows | None:
    """Return the windows of a sound, or None for one that is shorter than any encoder reads.

    Args:
        samples: length of the sound at 24 kHz.
        chunking: how it is cut; a last window of just half the length is kept.

    Raises:
        MertError: windows may come out too short to embed.
    """
    for name, seconds in (("windows", chunking.seconds), ("limit", chunking.limit_seconds)):
        if seconds is not None and seconds_to_samples(seconds) < 2 * MIN_SAMPLES:
            raise MertError(
                f"a chunking has a {name} of {seconds:g} s; at least {2 * MIN_SAMPLES / SAMPLE_RATE:g} s are needed, "
                "since a last window may be half as long"
            )
    used = samples if chunking.limit_seconds is None else min(samples, seconds_to_samples(chunking.limit_seconds))
    if used < MIN_SAMPLES:
        return None
    if chunking.seconds is None:
        return Windows(used, used)
    window = seconds_to_samples(chunking.seconds)
    if used > window and 2 * (used % window) < window:
        used -= used % window
    return Windows(min(window, used), used)


FORMAT = 1
_CARD = "card.json"
_NAME_DIGITS = 32
_STALE_SECONDS = 86_400  # no shard takes a day to write

_verified: set[tuple[Path, int, int]] = set()  # files whose checksum this process has seen to be right


@dataclass(frozen=True)
class EmbeddedSound:
    """One embedded sound.

    Attributes:
        identity: SHA-256 that tells sounds apart.
        samples: length of the whole sound.
        audio: SHA-256 of its samples.
        windows: the parts that were embedded.
        window_rows: rows of each window: 1 if pooled, else its frames; empty until it is embedded.
    """

    identity: str
    samples: int
    audio: str
    windows: Windows
    window_rows: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(self.window_rows)


@dataclass(frozen=True, eq=False)
class EmbeddingShard:
    """Rows of some sounds, (rows, states, width): a file, opened and checked when it is needed, or an array in memory.

    Attributes:
        stored: path of the file, or the rows themselves.
        sha256: checksum of the file.
    """

    stored: Path | NDArray[np.float16]
    sha256: str = ""

    def array(self) -> NDArray[np.float16]:
        """Return the rows, memory-mapped (rows, states, width).

        Raises:
            MertError: they are gone, or not as they were written.
        """
        if not isinstance(self.stored, Path):
            return self.stored
        try:
            status = self.stored.stat()
            return _opened(self.stored, self.sha256, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise MertError(_refusal(self.stored, error.strerror or str(error))) from error


@lru_cache(maxsize=128)  # each holds a file descriptor, of which a process may have about a thousand
def _opened(path: Path, sha256: str, size: int, modified: int) -> NDArray[np.float16]:
    if (path, size, modified) not in _verified and sha256_file(path) != sha256:
        raise MertError(_refusal(path, "the bytes are not those that were written"))
    _verified.add((path, size, modified))
    return np.load(path, mmap_mode="r").view(np.ndarray)


@dataclass(frozen=True)
class ShardRows:
    """Where the rows of a sound are: in a shard, from its row ``first`` on."""

    sound: EmbeddedSound
    shard: EmbeddingShard
    first: int


class EmbeddingStore:
    """All that was embedded by one encoder with one pooling.

    Args:
        folder: where shards lie; None: all is kept in memory.
        card: encoder, pooling and whatever else decides the numbers; the folder must hold such, or be new.

    Raises:
        MertError: the folder holds other embeddings, or its cards cannot be read.
    """

    def __init__(self, folder: Path | None, card: dict[str, Any]) -> None:
        self.folder, self.card = folder, {"format": FORMAT, **card}
        self.sounds: dict[str, EmbeddedSound] = {}
        self._rows: dict[tuple[str, Windows | None], ShardRows] = {}
        if folder is None:
            return
        if not (folder / _CARD).exists():
            write_json(folder / _CARD, self.card)
        stored = _read_json(folder / _CARD)
        differs = [
            f"{name} is {stored.get(name)!r}, expected {self.card.get(name)!r}"
            for name in sorted(self.card.keys() | stored.keys())
            if stored.get(name) != self.card.get(name)
        ]
        if differs:
            raise MertError(_refusal(folder, "; ".join(differs)))
        for path in sorted(folder.glob("*.json")):
            if path.name != _CARD:
                status = path.stat()
                sounds, sha256 = _read_shard_card(path, status.st_mtime_ns, status.st_size)
                self._register(sounds, EmbeddingShard(path.with_suffix(".npy"), sha256))
        for left in folder.glob(".*"):  # begun by a process that was killed
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)

    def find(self, identity: str, chunking: Chunking) -> ShardRows | None:
        """Return where the rows of a sound lie that is cut like this; None if it is not here, or too short."""
        known = self.sounds.get(identity)
        return None if known is None else self._rows.get((identity, windows_of(known.samples, chunking)))

    def write(self, embedded: Sequence[tuple[EmbeddedSound, NDArray[np.float16]]]) -> None:
        """Write a shard of sounds, each with its rows (rows, states, width)."""
        sounds, rows = [sound for sound, _ in embedded], [array for _, array in embedded]
        if self.folder is None:
            self._register(sounds, EmbeddingShard(np.concatenate(rows)))
            return
        header = BytesIO()
        shape = sum(len(array) for array in rows), *rows[0].shape[1:]
        np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
        pieces: list[bytes | memoryview] = [header.getvalue()]
        pieces += [np.ascontiguousarray(array, dtype="<f2").data for array in rows]
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        listed = [
            [sound.identity, sound.samples, sound.audio, *astuple(sound.windows), sound.window_rows] for sound in sounds
        ]
        card: dict[str, Any] = {"of": self.card, "sha256": digest.hexdigest(), "sounds": listed}
        path = self.folder / f"{sha256_json(card)[:_NAME_DIGITS]}.npy"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            stream.writelines(pieces)
        status = path.stat()
        _verified.add((path, status.st_size, status.st_mtime_ns))
        write_json(path.with_suffix(".json"), card)
        self._register(sounds, EmbeddingShard(path, card["sha256"]))

    def _register(self, sounds: Sequence[EmbeddedSound], shard: EmbeddingShard) -> None:
        first = 0
        for sound in sounds:
            self._rows.setdefault((sound.identity, sound.windows), ShardRows(sound, shard, first))
            self.sounds.setdefault(sound.identity, sound)
            first += sound.rows

    def check_sound(self, identity: str, samples: int, audio: str) -> None:
        """Refuse a sound that is not what it was when it was embedded.

        Raises:
            MertError: its samples are others, though it has the same identity.
        """
        known = self.sounds.get(identity)
        if known is not None and (known.samples, known.audio) != (samples, audio):
            raise MertError(
                f"the cached embeddings {self.folder} are refused: the sound {identity[:16]} had {known.samples} "
                f"samples (SHA-256 {known.audio[:16]}…) when it was embedded, and now has {samples} ({audio[:16]}…), "
                "so it was changed, or is decoded otherwise. Remove that folder and run again."
            )


@lru_cache(maxsize=8192)
def _read_shard_card(path: Path, _modified: int, _size: int) -> tuple[tuple[EmbeddedSound, ...], str]:
    card = _read_json(path)
    if sha256_json(card)[:_NAME_DIGITS] != path.stem:
        raise MertError(_refusal(path, "the bytes are not those that were written"))
    sounds = tuple(
        EmbeddedSound(identity, samples, audio, Windows(window, used), tuple(rows))
        for identity, samples, audio, window, used, rows in card["sounds"]
    )
    return sounds, card["sha256"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MertError(_refusal(path, str(error))) from error


def _refusal(path: Path, why: str) -> str:
    folder = path if path.suffix == "" else path.parent
    return f"the cached embeddings {path} are refused: {why}. Remove the folder {folder} and run again."
