"""Making a corpus again after its folder has changed: unchanged tracks keep their bytes and their place.

`PreviousCorpus.find` opens the corpus at the target if it was made with the same parameters. `unchanged_tracks`
compares every file with the SHA-256 in its manifest, and `reuse_tracks` begins the new corpus with those that match.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.decode import decode
from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import whole_hops
from mert_core.corpus.folder import Listing, track_id
from mert_core.data.corpus import read_index
from mert_core.data.hashes import FileHashes, Stamp, hash_file
from mert_core.data.manifest import GROUP_ROWS, MANIFEST_NAME, SHARDS_NAME
from mert_core.data.record import RECORD_NAME, read_record
from mert_core.data.shards import ShardReader, shard_name, to_int16
from mert_core.data.tables import in_groups
from mert_core.errors import MertError
from mert_core.files import link_or_copy
from mert_core.parallel import in_order

if TYPE_CHECKING:
    from mert_core.corpus.writer import CorpusWriter


_OF_SPLITS = frozenset({"seed", "valid_fraction"})  # parameters that shards do not depend on
_NO_HASH = bytes(32)
_LEFT_BEHIND = 0.1  # share of the shards beyond which it is another corpus

logger = logging.getLogger(__name__)


class PreviousCorpus:
    """A corpus made from files, with its tracks' hashes in memory: 81 bytes per track.

    Attributes:
        folder: the corpus's folder.
        index: shards, offsets and lengths of its tracks.
        source_rate: int32 (tracks,), sample rates of the files in hertz.
        clipped_samples: int64 (tracks,), numbers of samples outside [-1, 1].
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_index(folder, ShardReader(folder / SHARDS_NAME))
        self._record = read_record(folder)
        tracks = len(self.index.samples)
        ids, hashes = np.empty(tracks, "<u8"), np.empty(tracks, "V32")
        self.source_rate, self.clipped_samples = np.empty(tracks, np.int32), np.empty(tracks, np.int64)
        first = 0
        for table in in_groups(
            folder / MANIFEST_NAME, GROUP_ROWS, ["track_id", "source_sha256", "source_rate", "clipped_samples"]
        ):
            here = slice(first, first + len(table))
            ids[here] = [int(track_id, 16) for track_id in table["track_id"].to_pylist()]
            digests = (bytes.fromhex(text) if text else _NO_HASH for text in table["source_sha256"].to_pylist())
            hashes[here] = np.frombuffer(b"".join(digests), "V32")
            self.source_rate[here] = table["source_rate"].to_numpy()
            self.clipped_samples[here] = table["clipped_samples"].to_numpy()
            first += len(table)
        self._order = np.argsort(ids)
        self._ids, self._hashes = ids[self._order], hashes
        if (np.diff(self.index.shard) < 0).any():
            raise MertError(f"{folder / MANIFEST_NAME} is not in the order of its shards")

    @classmethod
    def find(cls, folder: Path, params: Mapping[str, Any]) -> PreviousCorpus | None:
        """Return the corpus at ``folder``; None if there is none, it is damaged, or it was made otherwise.

        Args:
            folder: the stage's output.
            params: parameters of the corpus to make; only those that decide shards must be the same.
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
        logger.warning("corpus: all music is read anew, because the corpus that lies here was %s", why)
        return None

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, track_id: str) -> int | None:
        """Return a track's row in the manifest; None if it has none."""
        number = int(track_id, 16)
        rank = int(np.searchsorted(self._ids, np.uint64(number)))
        return int(self._order[rank]) if rank < len(self) and int(self._ids[rank]) == number else None

    def source_sha256(self, row: int) -> bytes:
        """Return the SHA-256 (32 bytes) of the file that a track was made from."""
        return self._hashes[row].tobytes()

    def pcm(self, row: int) -> NDArray[np.int16]:
        """Return a track's samples (samples,)."""
        index, reader = self.index, ShardReader(self.folder / SHARDS_NAME)
        return reader.view(int(index.shard[row]), int(index.offset_samples[row]), int(index.samples[row]))

    def shards(self) -> Iterator[tuple[int, slice]]:
        """Yield every shard that has tracks, and which rows are its own."""
        shard = self.index.shard
        edges = np.concatenate([[0], np.flatnonzero(np.diff(shard)) + 1, [len(shard)]])
        for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield int(shard[first]), slice(first, end)

    def path(self, shard: int) -> Path:
        """Return a shard's file."""
        return self.folder / SHARDS_NAME / shard_name(shard)

    def sha256(self, shard: int) -> str | None:
        """Return the SHA-256 of a shard as the record gives it; None if the record lacks it."""
        return self._record.files.get(f"{SHARDS_NAME}/{shard_name(shard)}")

    def lineage(self, tracks: int, linked_shards: int) -> list[str]:
        """Return the ids of the corpora that a new one has grown from, oldest first.

        Empty if it leaves more than a tenth of this one's shards behind: then it is other music.

        Args:
            tracks: number of tracks in the new corpus.
            linked_shards: number of shards that it has taken over as they are.
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
            column = table.schema.get_field_index("offset_samples")
            moved = table.set_column(column, table.schema.field(column), pa.array(offset_samples[here]))
            yield moved.filter(pa.array(kept[here]))
            first += len(table)


def unchanged_tracks(
    listing: Listing, previous: PreviousCorpus, hashes: FileHashes, threads: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Compare every file that the previous corpus has with the SHA-256 that it had then.

    One track of each kind (suffix and rate), the shortest, is decoded again: if a new version of this code or of a
    decoder gives other samples, nothing is kept.

    Returns:
        Which tracks of the previous corpus to keep, bool (tracks,), and the files to read, in the listing's order.
    """
    kept = np.zeros(len(previous), np.bool_)
    rows = {path: row for path in listing.files if (row := previous.row(track_id(path))) is not None}
    unchanged: set[str] = set()
    examples: dict[tuple[str, int], tuple[int, str, int]] = {}
    bar = tqdm(desc="compare", total=len(rows), unit=" files", dynamic_ncols=True)
    with bar:
        for path, digest in _digests(listing.root, list(rows), hashes, threads):
            row = rows[path]
            if digest == previous.source_sha256(row):
                kept[row] = True
                unchanged.add(path)
                kind = PurePosixPath(path).suffix.lower(), int(previous.source_rate[row])
                example = int(previous.index.samples[row]), path, row
                examples[kind] = min(example, examples.get(kind, example))
            bar.update()
    checks = (_decodes_alike(listing.root / path, previous, row) for _, path, row in examples.values())
    if not all(checks):
        return np.zeros(len(previous), np.bool_), listing.files
    return kept, [path for path in listing.files if path not in unchanged]


def _digests(root: Path, files: list[str], hashes: FileHashes, threads: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield each file with its SHA-256, from the notebook if it looks as it did then; None if it cannot be read."""

    def look_up() -> Iterator[tuple[str, bytes | None]]:
        for path in files:
            try:
                yield path, hashes.find(path, Stamp.of(root / path))
            except OSError:
                yield path, None

    def complete(item: tuple[str, bytes | None]) -> tuple[str, Stamp | None, bytes | None]:
        path, noted = item
        try:
            return (path, None, noted) if noted else (path, *hash_file(root / path))
        except OSError:
            return path, None, None

    with ThreadPoolExecutor(threads, thread_name_prefix="music") as pool:
        for path, stamp, digest in in_order(pool, complete, look_up(), ahead=threads):
            if stamp and digest:
                hashes.remember(path, stamp, digest)
            yield path, digest


def _decodes_alike(path: Path, previous: PreviousCorpus, row: int) -> bool:
    """Return whether a file decodes to the samples that the previous corpus has of it."""
    try:
        waveform = decode(path).waveform
        same = np.array_equal(to_int16(waveform[: whole_hops(len(waveform))])[0], previous.pcm(row))
    except UnusableAudio:
        same = False
    if not same:
        logger.warning("corpus: %s gives other samples than it did, so all music is read anew", path.name)
    return same


def reuse_tracks(previous: PreviousCorpus, kept: NDArray[np.bool_], writer: CorpusWriter) -> None:
    """Begin a new corpus with tracks of the previous one.

    A shard of which all tracks are kept is linked, and not read. One that lost tracks is written again under its
    number, the others moved together; one that lost all is left out, and its number stays unused. New tracks go to
    shards behind the last one, so what is kept keeps its name and bytes.

    Args:
        previous: the corpus at the target.
        kept: bool (tracks,), the tracks to keep.
        writer: writer of the new corpus, still empty.
    """
    index, folder = previous.index, writer.folder / SHARDS_NAME
    offsets, linked, shards = index.offset_samples.copy(), {}, 0
    reader = ShardReader(previous.folder / SHARDS_NAME)
    for shard, rows in previous.shards():
        if kept[rows].all():
            link_or_copy(previous.path(shard), folder / shard_name(shard))
            if sha256 := previous.sha256(shard):
                linked[f"{SHARDS_NAME}/{shard_name(shard)}"] = sha256
        elif kept[rows].any():
            lengths = index.samples[rows] * kept[rows]
            offsets[rows] = np.cumsum(lengths) - lengths
            with (folder / shard_name(shard)).open("wb") as stream:
                for row in (np.flatnonzero(kept[rows]) + rows.start).tolist():
                    stream.write(reader.view(shard, int(index.offset_samples[row]), int(index.samples[row])).data)
        else:
            continue
        shards += 1
    tables = previous.tables(kept, offsets)
    writer.begin_with(tables, first_shard=int(index.shard.max()) + 1, shards=shards, reused_files=linked)
