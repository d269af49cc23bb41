"""One track on its way from a source (a folder of files, performed scores) into the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split


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
        split: train, valid or test; None leaves it to `mert_core.corpus.splits`, once all artists are known.
        licence: of the music.
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


ScoreTrack = SourceTrack
