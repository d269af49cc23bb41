"""The corpus that lies at the target: what of it is still true of the music, and need not be made again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mert_core.audio.pcm import ShardReader, shard_name
from mert_core.corpus.manifest import GROUP_ROWS, MANIFEST_NAME, SHARDS_NAME
from mert_core.corpus.places import read_places
from mert_core.corpus.tables import in_groups
from mert_core.errors import MertError
from mert_core.records import RECORD_NAME, read_record

_OF_SPLITS = frozenset({"seed", "valid_fraction"})  # parameters that shards do not depend on
_NO_HASH = bytes(32)
_LEFT_BEHIND = 0.1


class Previous:
    """A corpus made from files, with its tracks' hashes at hand: 81 bytes per track.

    Attributes:
        folder: where it lies.
        places: where its tracks lie.
        source_rate: int32 (tracks,), of the files, in hertz.
        clipped_samples: int64 (tracks,).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = read_places(folder, ShardReader(folder / SHARDS_NAME))
        self._record = read_record(folder)
        tracks = len(self.places.samples)
        ids, hashes = np.empty(tracks, "<u8"), np.empty(tracks, "V32")
        self.source_rate, self.clipped_samples = np.empty(tracks, np.int32), np.empty(tracks, np.int64)
        first = 0
        for table in in_groups(
            folder / MANIFEST_NAME, GROUP_ROWS, ["track_id", "source_sha256", "source_rate", "clipped_samples"]
        ):
            here = slice(first, first + len(table))
            ids[here] = [int(track_id, 16) for track_id in table["track_id"].to_pylist()]
            known = (bytes.fromhex(text) if text else _NO_HASH for text in table["source_sha256"].to_pylist())
            hashes[here] = np.frombuffer(b"".join(known), "V32")
            self.source_rate[here] = table["source_rate"].to_numpy()
            self.clipped_samples[here] = table["clipped_samples"].to_numpy()
            first += len(table)
        self._order = np.argsort(ids)
        self._ids, self._hashes = ids[self._order], hashes
        if (np.diff(self.places.shard) < 0).any():
            raise MertError(f"{folder / MANIFEST_NAME} is not in the order of its shards")

    @classmethod
    def at(cls, folder: Path, params: Mapping[str, Any]) -> Previous | None:
        """Return the corpus at ``folder``; None if there is none, it is damaged, or it was made otherwise.

        Args:
            folder: the stage's output.
            params: of the corpus to make; only those that decide shards must be the same.
        """
        if not (folder / RECORD_NAME).exists():
            return None
        try:
            old = read_record(folder).params
            differing = sorted(
                name for name in (set(old) | set(params)) - _OF_SPLITS if old.get(name) != params.get(name)
            )
            if not differing:
                return cls(folder)
            why = f"made with another {', '.join(differing)}"
        except (MertError, ValueError) as error:  # an id that is no hexadecimal number: not a folder's corpus
            why = str(error)
        print(f"corpus: all music is read anew, because the corpus that lies here was {why}", file=sys.stderr)
        return None

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, track_id: str) -> int | None:
        """Return a track's row."""
        wanted = int(track_id, 16)
        place = int(np.searchsorted(self._ids, np.uint64(wanted)))
        return int(self._order[place]) if place < len(self) and int(self._ids[place]) == wanted else None

    def source_sha256(self, row: int) -> bytes:
        """Return the SHA-256 (32 bytes) of the file that a track was made from."""
        return self._hashes[row].tobytes()

    def pcm(self, row: int) -> NDArray[np.int16]:
        """Return a track's samples (samples,)."""
        where, reader = self.places, ShardReader(self.folder / SHARDS_NAME)
        return reader.view(int(where.shard[row]), int(where.offset_samples[row]), int(where.samples[row]))

    def shards(self) -> Iterator[tuple[int, slice]]:
        """Yield every shard that has tracks, and which rows are its own."""
        shard = self.places.shard
        edges = np.concatenate([[0], np.flatnonzero(np.diff(shard)) + 1, [len(shard)]])
        for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield int(shard[first]), slice(first, end)

    def path(self, shard: int) -> Path:
        """Return a shard's file."""
        return self.folder / SHARDS_NAME / shard_name(shard)

    def sha256(self, shard: int) -> str | None:
        """Return what the record says of a shard's bytes."""
        return self._record.files.get(f"{SHARDS_NAME}/{shard_name(shard)}")

    def lineage(self, tracks: int, linked_shards: int) -> list[str]:
        """Return the ids of the corpora that a new one has grown from, oldest first.

        None if it leaves more than a tenth of this one's shards behind: then it is other music.

        Args:
            tracks: of the new corpus.
            linked_shards: that it has taken over as they are.
        """
        shards, before = sum(1 for _ in self.shards()), self._record.facts.get("grown_from", [])
        if linked_shards == shards and tracks == len(self):
            return list(before)  # nothing has changed
        return [*before, self._record.id] if linked_shards >= (1 - _LEFT_BEHIND) * shards else []

    def tables(self, kept: NDArray[np.bool_], offset_samples: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Yield the manifest's rows of the kept tracks, with their new offsets."""
        first = 0
        for table in in_groups(self.folder / MANIFEST_NAME, GROUP_ROWS):
            here = slice(first, first + len(table))
            place = table.schema.get_field_index("offset_samples")
            moved = table.set_column(place, table.schema.field(place), pa.array(offset_samples[here]))
            yield moved.filter(pa.array(kept[here]))
            first += len(table)
