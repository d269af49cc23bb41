"""Writes a corpus folder from a stream of tracks; memory holds one track and a few thousand rows."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import RECEPTIVE_SAMPLES, SAMPLE_RATE, whole_hops
from mert_core.data.manifest import ROWS_NAME, SCHEMA, SHARDS_NAME
from mert_core.data.shards import ShardWriter, to_int16
from mert_core.data.tables import TableWriter
from mert_core.data.track import Quarantine, Rejected, SourceTrack

_OF_SOURCE = ("track_id", "source_rate", "source", "source_sha256", "piece", "artist", "split", "licence")


class CorpusWriter:
    """Takes tracks one by one: PCM to the shards, a row to the manifest, notes, beats and labels to their tables.

    Of two tracks with the same samples the later goes to quarantine.

    Attributes:
        folder: the corpus's folder.
        quarantine: files and tracks left out so far.
        tracks: number of tracks taken in.
        samples: length of all tracks together.
        clipped_samples: number of samples outside [-1, 1].
        reused_files: SHA-256 of shards linked from an earlier corpus, by relative path.
    """

    def __init__(self, folder: Path, shard_megabytes: float) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._shards = self._open.enter_context(ShardWriter(folder / SHARDS_NAME, shard_megabytes))
        self._rows = self._open.enter_context(TableWriter(folder / ROWS_NAME, SCHEMA))
        self._tables = {
            name: self._open.enter_context(TableWriter(folder / f"{name}.parquet"))
            for name in ("notes", "beats", "labels")
        }
        # the source that first brought each track's samples, in a file without a name, which is gone when it is closed
        self._digests = self._open.enter_context(closing(sqlite3.connect("")))
        self._digests.execute("PRAGMA journal_mode = OFF")
        self._digests.execute("PRAGMA cache_size = -65536")  # KiB
        self._digests.execute("CREATE TABLE digests (sha256 BLOB PRIMARY KEY, source TEXT) WITHOUT ROWID")
        self.reused_files: Mapping[str, str] = {}
        self.quarantine = Quarantine()
        self.tracks = 0
        self.samples = 0
        self.clipped_samples = 0

    def begin_with(self, tables: Iterable[pa.Table], first_shard: int, reused_files: Mapping[str, str]) -> None:
        """Take in tracks whose shards lie in the folder already.

        Args:
            tables: the tracks' rows of the manifest; their splits are ignored.
            first_shard: number of the first shard that is still to be written.
            reused_files: SHA-256 of the shards that are linked unchanged, by relative path.
        """
        self._shards.begin_at(first_shard)
        self.reused_files = reused_files
        for table in tables:
            self._rows.extend(table)
            self.tracks += len(table)
            self.samples += pc.sum(table["samples"], min_count=0).as_py()
            self.clipped_samples += pc.sum(table["clipped_samples"], min_count=0).as_py()
            hashes, sources = table["content_hash"].to_pylist(), table["source"].to_pylist()
            pairs = zip(map(bytes.fromhex, hashes), sources, strict=True)
            self._digests.executemany("INSERT INTO digests VALUES (?, ?)", pairs)

    def add(self, item: SourceTrack | Rejected) -> None:
        """Take in one track, or one that its source has rejected already."""
        if isinstance(item, Rejected):
            self.quarantine.add(item.path, item.why)
            return
        try:
            self._store(item)
        except UnusableAudio as why:
            self.quarantine.add(item.source, why)

    def _store(self, track: SourceTrack) -> None:
        length = whole_hops(len(track.waveform))
        if length < RECEPTIVE_SAMPLES:
            raise UnusableAudio("too short", f"{len(track.waveform)} samples at 24 kHz do not fill one frame")
        pcm, clipped = to_int16(track.waveform[:length])
        if not pcm.any():  # a file that sounds above 12 kHz alone, say; `check_music` has refused silent files
            raise UnusableAudio("silent", "all samples are 0 in 16 bits")
        digest = hashlib.sha256(pcm.data)
        query = "SELECT source FROM digests WHERE sha256 = ?"
        if other := self._digests.execute(query, (digest.digest(),)).fetchone():
            raise UnusableAudio("duplicate", f"same audio as {other[0]}")
        self._digests.execute("INSERT INTO digests VALUES (?, ?)", (digest.digest(), track.source))
        shard, offset_samples = self._shards.append(pcm)
        self.tracks += 1
        self.samples += length
        self.clipped_samples += clipped
        self._rows.append(
            {
                "content_hash": digest.hexdigest(),
                "seconds": length / SAMPLE_RATE,
                "samples": length,
                "clipped_samples": clipped,
                **{name: getattr(track, name) for name in _OF_SOURCE},
                "shard": shard,
                "offset_samples": offset_samples,
            }
        )
        labels = None if track.labels is None else [track.labels]
        for table, rows in {"notes": track.notes, "beats": track.beats, "labels": labels}.items():
            for row in rows or ():
                self._tables[table].append({"track_id": track.track_id, **row})

    def rows(self) -> Path:
        """Return the file with the manifest's rows of what was taken in, in that order; no more can be taken in.

        `mert_core.data.manifest.write_manifest` removes it.
        """
        self._rows.close()
        return self.folder / ROWS_NAME

    @property
    def shards(self) -> int:
        """Number of shards in the folder."""
        return sum(1 for _ in (self.folder / SHARDS_NAME).iterdir())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
