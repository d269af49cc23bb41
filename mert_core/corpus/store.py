"""`Corpus`: what later stages read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.audio.pcm import ShardReader
from mert_core.audio.remote import RemoteShards
from mert_core.corpus.manifest import SHARDS_NAME, read_manifest
from mert_core.corpus.tables import read_table
from mert_core.errors import MertError
from mert_core.records import Record, read_record


class Corpus:
    """Read access to a corpus or probe set. A row is an index into the manifest. Cheap to open and to pickle.

    Attributes:
        folder: where it lies.
        tracks: the manifest, one row per track; the columns are those of `mert_core.corpus.manifest.SCHEMA`.
    """

    def __init__(self, folder: Path, tracks: pa.Table, reader: ShardReader | RemoteShards) -> None:
        self.folder = folder
        self.tracks = tracks
        self._reader = reader
        self._shard = tracks["shard"].to_numpy().astype(np.int64)
        self._offset = tracks["offset_samples"].to_numpy()
        self._samples = tracks["samples"].to_numpy()

    @classmethod
    def open(cls, folder: Path, shards: str | None = None) -> Corpus:
        """Open what `mert corpus` or `mert probe-set` wrote.

        Args:
            folder: where it lies.
            shards: address of the folder's copy on an object store, to read the shards from there; None: they lie in
                the folder.

        Raises:
            MertError: it is missing, or manifest and shards do not fit together.
        """
        read_record(folder)
        reader = ShardReader(folder / SHARDS_NAME) if shards is None else RemoteShards(f"{shards}/{SHARDS_NAME}")
        return cls(folder, read_manifest(folder, reader), reader)

    def __len__(self) -> int:
        return self.tracks.num_rows

    @cached_property
    def record(self) -> Record:
        """The stage's record; its ``id`` is the corpus's."""
        return read_record(self.folder)

    @property
    def seconds(self) -> float:
        """Length of all tracks together."""
        return int(self._samples.sum()) / SAMPLE_RATE

    @property
    def samples(self) -> NDArray[np.int64]:
        """Length of every track in samples (tracks,)."""
        return self._samples

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the manifest (tracks,)."""
        return self.tracks[name].to_numpy()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split, in manifest order; empty if the corpus has no such split."""
        return np.flatnonzero(self.column("split") == split)

    def labels(self) -> pa.Table:
        """Return the labels, one row per track, in manifest order.

        Raises:
            MertError: the corpus has none, or not those of its tracks.
        """
        table = self._table("labels")
        if not table["track_id"].equals(self.tracks["track_id"]):
            raise MertError(f"{self.folder}: labels and manifest name different tracks. Run `dvc repro`.")
        return table

    def notes(self) -> pa.Table:
        """Return all notes, in the order of the tracks; ``track_id`` says whose they are."""
        return self._table("notes")

    def beats(self) -> pa.Table:
        """Return all beats, in the order of the tracks; ``track_id`` says whose they are."""
        return self._table("beats")

    def _table(self, name: str) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            raise MertError(f"the corpus {self.folder} has no {name}: only music played from scores brings them")
        return read_table(path)

    def pcm(self, row: int) -> NDArray[np.int16]:
        """Return a whole track, read-only (samples,); memory-mapped where the shards lie in the folder."""
        return self._reader.view(int(self._shard[row]), int(self._offset[row]), int(self._samples[row]))

    def crops(
        self,
        rows: NDArray[np.int64],
        offset_samples: NDArray[np.int64],
        length: int,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Copy equally long crops out of tracks.

        Args:
            rows: (batch,) tracks.
            offset_samples: (batch,) start of each crop within its track.
            length: samples per crop.
            out: (batch, length) to write into, for example pinned memory; int16, or float32 for waveforms, −1 … 1.

        Returns:
            ``out``, or a new int16 (batch, length).

        Raises:
            IndexError: a crop does not lie inside its track.
        """
        rows, starts = np.asarray(rows, dtype=np.int64), np.asarray(offset_samples, dtype=np.int64)
        outside = (starts < 0) | (starts + length > self._samples[rows])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            crop = f"crop of {length} samples at {starts[first]}"
            raise IndexError(f"{crop} of row {rows[first]}, which has {self._samples[rows[first]]}")
        return self._reader.gather(self._shard[rows], self._offset[rows] + starts, length, out)
