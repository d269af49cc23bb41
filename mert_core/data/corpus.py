"""The reader of corpora and probe sets: where each track lies, the manifest's columns, and the sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.manifest import GROUP_ROWS, MANIFEST_NAME, SCHEMA, SHARDS_NAME, SPLITS, split_numbers
from mert_core.data.record import Record, read_record
from mert_core.data.remote import RemoteShards
from mert_core.data.shards import DTYPE, ShardReader, shard_name
from mert_core.data.tables import hash_column, in_groups, open_parquet, read_table
from mert_core.errors import MertError

_NUMBERS = ("samples", "shard", "offset_samples")


@dataclass(eq=False)
class Corpus:
    """Read access to a corpus or probe set. A row is an index into the manifest. Cheap to open and to pickle.

    Only where the tracks lie is held in memory, 21 bytes per track; other columns are read when they are asked for.

    Attributes:
        folder: folder of manifest, shards and record.
        reader: reads the shards, wherever they lie.
        samples: int64 (tracks,), lengths.
        shard: int32 (tracks,), shard numbers.
        offset_samples: int64 (tracks,), starts within the shards.
        split: int8 (tracks,), indices into `SPLITS`.
        chosen: bool (tracks,), the tracks that pass the filter; None: all.
    """

    folder: Path
    reader: ShardReader | RemoteShards
    samples: NDArray[np.int64]
    shard: NDArray[np.int32]
    offset_samples: NDArray[np.int64]
    split: NDArray[np.int8]
    chosen: NDArray[np.bool_] | None = None

    @classmethod
    def open(cls, folder: Path, where: pc.Expression | None = None, shards: str | None = None) -> Corpus:
        """Open what `mert corpus` or `mert probe-set` wrote, and check that every shard has the right size.

        Args:
            folder: folder of manifest, shards and record.
            where: a filter over the manifest's columns, for example ``pyarrow.compute.field("seconds") > 30``: `rows`
                gives only tracks that pass it. Row numbers stay the manifest's, which targets go by.
            shards: address of the folder's copy on an object store, to read the shards from there; None: they lie in
                the folder.

        Raises:
            MertError: a file is missing, the manifest is of another version, the shards are not the manifest's, or
                the filter names a column that there is not.
        """
        read_record(folder)
        path = folder / MANIFEST_NAME
        with open_parquet(path) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise MertError(f"{path} has other columns than this version writes. Run `dvc repro`.")
            tracks = file.metadata.num_rows
        reader = ShardReader(folder / SHARDS_NAME) if shards is None else RemoteShards(f"{shards}/{SHARDS_NAME}")
        corpus = cls(
            folder,
            reader,
            samples=np.empty(tracks, np.int64),
            shard=np.empty(tracks, np.int32),
            offset_samples=np.empty(tracks, np.int64),
            split=np.empty(tracks, np.int8),
            chosen=None if where is None else np.empty(tracks, np.bool_),
        )
        first = 0
        for group in _groups(path, where):
            here = slice(first, first + len(group))
            for name in _NUMBERS:
                getattr(corpus, name)[here] = group[name].to_numpy()
            corpus.split[here] = split_numbers(group["split"])
            if corpus.chosen is not None:
                corpus.chosen[here] = group["chosen"].fill_null(False).to_numpy()
            first += len(group)
        corpus._check_sizes()
        return corpus

    def _check_sizes(self) -> None:
        ends = np.zeros(int(self.shard.max()) + 1, np.int64)
        np.maximum.at(ends, self.shard, self.offset_samples + self.samples)
        sizes = self.reader.sizes()
        for shard in np.flatnonzero(ends).tolist():
            expected, size = int(ends[shard]) * DTYPE.itemsize, sizes.get(shard_name(shard))
            if size != expected:
                state = "is missing" if size is None else f"has {size} bytes"
                raise MertError(
                    f"{self.reader.path(shard)} {state}; the manifest needs {expected} bytes. {self.reader.remedy}"
                )

    def with_hours(self, hours: float) -> Corpus:
        """Return the corpus with a random subset of its training split; the other splits stay whole.

        Tracks are taken in the order of a hash of their ids, which no seed and no other track changes: the subset is
        the same in every run, and contains that of every smaller number. One track is always taken.

        Args:
            hours: most hours of music in the subset.

        Raises:
            MertError: the training split holds less.
        """
        rows = self.rows("train")
        order = rows[np.argsort(hash_column(self.folder / MANIFEST_NAME, "track_id")[rows], kind="stable")]
        hours_until = np.cumsum(self.samples[order]) / SAMPLE_RATE / 3600
        held = hours_until[-1] if len(order) else 0.0
        if not len(order) or hours > held:
            raise MertError(
                f"hours is {hours:g}, but the training split of {self.folder} holds {held:.3f}; choose "
                "fewer, or add music"
            )
        left_out = order[max(1, int(np.searchsorted(hours_until, hours, side="right"))) :]
        chosen = np.ones(len(self), np.bool_) if self.chosen is None else self.chosen.copy()
        chosen[left_out] = False
        return replace(self, chosen=chosen)

    def __len__(self) -> int:
        """Return the number of rows of the manifest, whatever was filtered."""
        return len(self.samples)

    @cached_property
    def record(self) -> Record:
        """The stage's record; its ``id`` is the corpus's."""
        return read_record(self.folder)

    @property
    def tracks(self) -> pa.Table:
        """The whole manifest, read anew: gigabytes for a million tracks. `column` and `arrow` read one column."""
        return read_table(self.folder / MANIFEST_NAME)

    def arrow(self, name: str) -> pa.ChunkedArray:
        """Return one column of the manifest as Arrow's array (tracks,), a tenth of the memory of Python's strings.

        Raises:
            MertError: there is no such column.
        """
        return read_table(self.folder / MANIFEST_NAME, name)[name]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the manifest (tracks,); text as Python strings.

        Raises:
            MertError: there is no such column.
        """
        return self.arrow(name).to_numpy()

    def rows(self, split: str | None = None) -> NDArray[np.int64]:
        """Return the rows of a split, or of all, in manifest order; empty if the corpus has no such split."""
        number = SPLITS.index(split) if split in SPLITS else len(SPLITS)
        chosen = np.ones(len(self), np.bool_) if split is None else self.split == number
        return np.flatnonzero(chosen if self.chosen is None else chosen & self.chosen)

    def labels(self) -> pa.Table:
        """Return the labels, one row per track, in manifest order.

        Raises:
            MertError: the corpus has none, or not those of its tracks.
        """
        table = self._table("labels")
        if not table["track_id"].equals(self.arrow("track_id")):
            raise MertError(f"{self.folder}: labels and manifest name different tracks. Run `dvc repro`.")
        return table

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
        return self.reader.view(int(self.shard[row]), int(self.offset_samples[row]), int(self.samples[row]))

    def crops(
        self, rows: NDArray[np.int64], offset_samples: NDArray[np.int64], length: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Copy equally long crops out of tracks.

        Args:
            rows: (batch,) rows of tracks.
            offset_samples: (batch,) start of each crop within its track.
            length: samples per crop.
            out: (batch, length) to write into, for example pinned memory; int16, or float32 for waveforms, −1 … 1.

        Returns:
            ``out``, or a new int16 (batch, length).

        Raises:
            IndexError: a crop does not lie inside its track.
        """
        rows, starts = np.asarray(rows, dtype=np.int64), np.asarray(offset_samples, dtype=np.int64)
        outside = (starts < 0) | (starts + length > self.samples[rows])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            crop = f"crop of {length} samples at {starts[first]}"
            raise IndexError(f"{crop} of row {rows[first]}, which has {self.samples[rows[first]]}")
        return self.reader.gather(self.shard[rows].astype(np.int64), self.offset_samples[rows] + starts, length, out)


def _groups(path: Path, where: pc.Expression | None) -> Iterator[pa.Table]:
    """Yield the numbers, and with a filter the column ``chosen``."""
    numbers = (*_NUMBERS, "split")
    if where is None:
        yield from in_groups(path, GROUP_ROWS, *numbers)
        return
    import pyarrow.dataset as ds  # a third of a second and 50 MB, for filters alone

    columns = {**{name: ds.field(name) for name in numbers}, "chosen": where}
    try:
        scanner = ds.dataset(path, format="parquet").scanner(
            columns=columns, batch_size=GROUP_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        for batch in scanner.to_batches():
            yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise MertError(
            f"cannot select from {path} where {where}: {error}. Its columns are {', '.join(SCHEMA.names)}."
        ) from error
