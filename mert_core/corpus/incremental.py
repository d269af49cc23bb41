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
from mert_core.data.corpus import Corpus
from mert_core.data.hashes import FileHashes, Stamp, hash_file
from mert_core.data.manifest import GROUP_ROWS, MANIFEST_NAME, SCHEMA, SHARDS_NAME
from mert_core.data.record import RECORD_NAME, read_record
from mert_core.data.shards import shard_name, to_int16
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
    """A corpus made from files, with its tracks' hashes in memory: 65 bytes per track.

    Attributes:
        corpus: where the tracks lie, and their samples.
        ids: uint64 (tracks,), the tracks' ids.
        source_sha256: V32 (tracks,), SHA-256 of the files that the tracks were made from.
        source_rate: int32 (tracks,), sample rates of the files in hertz.
    """

    def __init__(self, folder: Path) -> None:
        self.corpus = Corpus.open(folder)
        self._manifest = folder / MANIFEST_NAME
        tracks, first = len(self.corpus), 0
        self.ids, self.source_sha256 = np.empty(tracks, np.uint64), np.empty(tracks, "V32")
        self.source_rate = np.empty(tracks, np.int32)
        for table in in_groups(self._manifest, GROUP_ROWS, "track_id", "source_sha256", "source_rate"):
            here = slice(first, first + len(table))
            self.ids[here] = [int(track_id, 16) for track_id in table["track_id"].to_pylist()]
            digests = (bytes.fromhex(text) if text else _NO_HASH for text in table["source_sha256"].to_pylist())
            self.source_sha256[here] = np.frombuffer(b"".join(digests), "V32")
            self.source_rate[here] = table["source_rate"].to_numpy()
            first += len(table)
        if (np.diff(self.corpus.shard) < 0).any():
            raise MertError(f"{self._manifest} is not in the order of its shards")

    @classmethod
    def find(cls, folder: Path, params: Mapping[str, Any]) -> PreviousCorpus | None:
        """Return the corpus at ``folder``; None if there is none, it is damaged, or was made otherwise."""
        if not (folder / RECORD_NAME).exists():
            return None
        try:
            old = read_record(folder).params
            names = (set(old) | set(params)) - _OF_SPLITS
            differing = sorted(name for name in names if old.get(name) != params.get(name))
            if not differing:
                return cls(folder)
            why = f"made with another {', '.join(differing)}"
        except (MertError, ValueError) as error:  # an id that is no hexadecimal number: not a folder's corpus
            why = str(error)
        logger.warning("corpus: all music is read anew, because the corpus that lies here was %s", why)
        return None

    def shards(self) -> Iterator[tuple[int, slice]]:
        """Yield every shard that has tracks, and which rows are its own."""
        numbers, firsts = np.unique(self.corpus.shard, return_index=True)
        for shard, first, end in zip(numbers.tolist(), firsts.tolist(), [*firsts[1:].tolist(), None], strict=True):
            yield shard, slice(first, end)

    def lineage(self, tracks: int, linked_shards: int) -> list[str]:
        """Return the ids of the corpora that a new one of so many tracks has grown from, oldest first.

        Empty if it has left more than a tenth of this one's shards behind: then it is other music.
        """
        record, shards = self.corpus.record, len(np.unique(self.corpus.shard))
        before = list(record.facts.get("grown_from", []))
        if linked_shards == shards and tracks == len(self.corpus):
            return before  # nothing has changed
        return [*before, record.id] if linked_shards >= (1 - _LEFT_BEHIND) * shards else []

    def tables(self, kept: NDArray[np.bool_], offset_samples: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Yield the manifest's rows of the kept tracks, with their new offsets."""
        first, column = 0, SCHEMA.get_field_index("offset_samples")
        for table in in_groups(self._manifest, GROUP_ROWS):
            here = slice(first, first + len(table))
            moved = table.set_column(column, SCHEMA.field(column), pa.array(offset_samples[here]))
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
    files = listing.files
    ids = np.array([int(track_id(path), 16) for path in files], np.uint64)
    _, numbers, rows = np.intersect1d(ids, previous.ids, assume_unique=True, return_indices=True)
    row_of = {files[number]: row for number, row in sorted(zip(numbers.tolist(), rows.tolist(), strict=True))}
    kept = np.zeros(len(previous.corpus), np.bool_)
    examples: dict[tuple[str, int], tuple[int, str, int]] = {}
    with tqdm(desc="compare", total=len(row_of), unit=" files", dynamic_ncols=True) as bar:
        for path, digest in _digests(listing.root, list(row_of), hashes, threads):
            row = row_of[path]
            if digest == previous.source_sha256[row].tobytes():
                kept[row] = True
                kind = PurePosixPath(path).suffix.lower(), int(previous.source_rate[row])
                example = int(previous.corpus.samples[row]), path, row
                examples[kind] = min(example, examples.get(kind, example))
            bar.update()
    for _, path, row in examples.values():
        if not _decodes_alike(listing.root / path, previous.corpus, row):
            return np.zeros_like(kept), files
    return kept, [path for path in files if path not in row_of or not kept[row_of[path]]]


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


def _decodes_alike(path: Path, previous: Corpus, row: int) -> bool:
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
    shards behind the last one, so what is kept keeps its name and bytes. ``kept`` is bool (tracks,).
    """
    corpus, linked = previous.corpus, {}
    offsets = corpus.offset_samples.copy()
    for shard, rows in previous.shards():
        name = f"{SHARDS_NAME}/{shard_name(shard)}"
        if kept[rows].all():
            link_or_copy(corpus.folder / name, writer.folder / name)
            if sha256 := corpus.record.files.get(name):
                linked[name] = sha256
        elif kept[rows].any():
            lengths = corpus.samples[rows] * kept[rows]
            offsets[rows] = np.cumsum(lengths) - lengths
            with (writer.folder / name).open("wb") as stream:
                for row in (np.flatnonzero(kept[rows]) + rows.start).tolist():
                    stream.write(corpus.pcm(row).data)
    tables = previous.tables(kept, offsets)
    writer.begin_with(tables, first_shard=int(corpus.shard.max()) + 1, reused_files=linked)
