"""Writes a corpus folder from a stream of tracks; memory holds one track and the manifest's columns."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from mert_core.audio.frames import RECEPTIVE_SAMPLES, SAMPLE_RATE, whole_hops
from mert_core.audio.pcm import ShardWriter, to_int16
from mert_core.audio.unusable import UnusableAudio
from mert_core.corpus.manifest import SCHEMA, SHARDS_NAME
from mert_core.corpus.quarantine import Quarantine, Rejected
from mert_core.corpus.tables import TableWriter
from mert_core.corpus.track import SourceTrack

_BATCH_ROWS = 4096


class CorpusWriter:
    """Takes tracks one by one: PCM to the shards, a row to the manifest, notes, beats and labels to their tables.

    Of two tracks with the same samples the later goes to quarantine.

    Attributes:
        quarantine: what was left out so far.
        tracks: how many were kept.
        samples: their length together.
        clipped_samples: how many samples lay outside [-1, 1].
    """

    def __init__(self, folder: Path, shard_megabytes: float) -> None:
        self._open = ExitStack()
        self._shards = self._open.enter_context(ShardWriter(folder / SHARDS_NAME, shard_megabytes))
        self._tables = {
            name: self._open.enter_context(TableWriter(folder / f"{name}.parquet"))
            for name in ("notes", "beats", "labels")
        }
        self._first_with: dict[bytes, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self.quarantine = Quarantine()
        self.tracks = 0
        self.samples = 0
        self.clipped_samples = 0

    def add(self, item: SourceTrack | Rejected) -> None:
        """Take in one track, or one that its source has rejected already."""
        if isinstance(item, Rejected):
            self.quarantine.add(item)
            return
        try:
            self._store(item)
        except UnusableAudio as why:
            self.quarantine.add(Rejected(item.source, why))

    def _store(self, track: SourceTrack) -> None:
        length = whole_hops(len(track.waveform))
        if length < RECEPTIVE_SAMPLES:
            raise UnusableAudio("too short", f"{len(track.waveform)} samples at 24 kHz do not fill one frame")
        waveform = track.waveform[:length]
        if not np.isfinite(waveform).all():
            raise UnusableAudio("not finite", "NaN or infinity")
        pcm, clipped = to_int16(waveform)
        if not pcm.any():
            raise UnusableAudio("silent", "all samples are 0 in 16 bits")
        digest = hashlib.sha256(pcm.data)
        if digest.digest() in self._first_with:
            raise UnusableAudio("duplicate", f"same audio as {self._first_with[digest.digest()]}")
        self._first_with[digest.digest()] = track.source
        shard, offset_samples = self._shards.append(pcm)
        self.tracks += 1
        self.samples += length
        self.clipped_samples += clipped
        self._rows.append(
            {
                "track_id": track.track_id,
                "content_hash": digest.hexdigest(),
                "seconds": length / SAMPLE_RATE,
                "samples": length,
                "source_rate": track.source_rate,
                "source": track.source,
                "piece": track.piece,
                "artist": track.artist,
                "split": track.split,
                "licence": track.licence,
                "shard": shard,
                "offset_samples": offset_samples,
            }
        )
        if len(self._rows) >= _BATCH_ROWS:
            self._batch()
        self._append("notes", track.track_id, track.notes)
        self._append("beats", track.track_id, track.beats)
        self._append("labels", track.track_id, None if track.labels is None else [track.labels])

    def _append(self, table: str, track_id: str, rows: list[dict[str, Any]] | None) -> None:
        for row in rows or ():
            self._tables[table].append({"track_id": track_id, **row})

    def _batch(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows.clear()

    def manifest(self) -> pa.Table:
        """Return the manifest of what was taken in, in that order."""
        self._batch()
        return pa.Table.from_batches(self._batches, schema=SCHEMA).combine_chunks()

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self._shards.shards

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
