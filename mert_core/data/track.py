"""One track on its way from a source (a folder of files, performed scores) into the corpus."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mert_core.audio.errors import UnusableAudio
from mert_core.config import Split
from mert_core.data.tables import write_table


@dataclass(frozen=True)
class SourceTrack:
    """Audio and everything known about it; what the stage stores as one manifest row.

    ``notes``, ``beats`` and ``labels`` are rows of the optional tables ``notes.parquet``, ``beats.parquet`` and
    ``labels.parquet``, without ``track_id``, which the stage adds. All rows of one table, over all tracks, share
    the same keys. A value that needs a narrower type than Python's own (int, float, bool, str, list) is given as
    a numpy scalar, for example ``np.int16(60)``; ``None`` means that the source has no such table.

    Attributes:
        track_id: unique and stable: the same music under the same parameters gets the same id.
        waveform: float32 (samples,), mono at 24 kHz, in [-1, 1]; what lies outside is clipped and counted.
        source_rate: the true rate of the source, in hertz.
        source: relative path or score id.
        piece: what must not be in two splits.
        artist: composer, or folder artist.
        split: train, valid or test; None leaves it to `mert_core.corpus.sources`, once all artists are known.
        licence: licence of the music.
        source_sha256: SHA-256 of the source file's bytes, in hexadecimal digits; None if there is no file.
        labels: one row of labels.
        notes: one row per note.
        beats: one row per beat.
    """

    track_id: str
    waveform: NDArray[np.float32]
    source_rate: int
    source: str
    piece: str
    artist: str
    split: Split | None
    licence: str
    labels: dict[str, Any] | None = None
    notes: list[dict[str, Any]] | None = None
    beats: list[dict[str, Any]] | None = None
    source_sha256: str | None = None


QUARANTINE_NAME = "quarantine.parquet"
SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Rejected:
    """A file that a source could not turn into a track."""

    path: str
    why: UnusableAudio


def printable(path: str) -> str:
    """Return a path that can be stored as UTF-8; bytes that are no UTF-8 appear as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Quarantine:
    """Collects rejected files in the order in which they were met."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, path: str, why: UnusableAudio) -> None:
        """Take in one file."""
        self.rows.append({"path": printable(path), "reason": why.reason, "detail": why.detail})

    def counts(self) -> dict[str, int]:
        """Return how many files each reason has, commonest first."""
        counted = Counter(row["reason"] for row in self.rows)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def summary(self) -> str:
        """Return the counts as text: ``3 truncated, 1 silent``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts().items())

    def write(self, folder: Path) -> None:
        """Write ``quarantine.parquet``, empty or not."""
        write_table(folder / QUARANTINE_NAME, pa.Table.from_pylist(self.rows, schema=SCHEMA))
