"""Which files of a folder are the ones that the previous corpus was made from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.decode import decode
from mert_core.audio.frames import whole_hops
from mert_core.audio.pcm import to_int16
from mert_core.audio.unusable import UnusableAudio
from mert_core.corpus.folder import Listing, in_order, track_id
from mert_core.corpus.hashes import FileHashes, Stamp, hash_file
from mert_core.corpus.previous import Previous


def unchanged_tracks(
    listing: Listing, previous: Previous, hashes: FileHashes, threads: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Compare every file that the previous corpus has with the SHA-256 that it had then.

    One track of each kind (suffix and rate), the shortest, is decoded again: if a new version of this code or of a
    decoder gives other samples, nothing is kept.

    Returns:
        The tracks of the previous corpus to keep, bool (tracks,), and the files to read, in the listing's order.
    """
    kept, found = np.zeros(len(previous), np.bool_), np.zeros(len(listing.files), np.bool_)
    rows = [previous.row(track_id(path)) for path in listing.files]
    known = [place for place, row in enumerate(rows) if row is not None]
    examples: dict[tuple[str, int], tuple[int, str, int]] = {}
    bar = tqdm(desc="compare", total=len(known), unit=" files", dynamic_ncols=True)
    with bar:
        digests = _digests(listing.root, [listing.files[place] for place in known], hashes, threads)
        for place, digest in zip(known, digests, strict=True):
            row, path = rows[place], listing.files[place]
            assert row is not None
            if digest == previous.source_sha256(row):
                kept[row] = found[place] = True
                kind = PurePosixPath(path).suffix.lower(), int(previous.source_rate[row])
                example = int(previous.places.samples[row]), path, row
                examples[kind] = min(example, examples.get(kind, example))
            bar.update()
    checks = (_decodes_alike(listing.root / path, previous, row) for _, path, row in examples.values())
    if not all(checks):
        return np.zeros(len(previous), np.bool_), listing.files
    return kept, [path for path, is_kept in zip(listing.files, found.tolist(), strict=True) if not is_kept]


def _digests(root: Path, files: list[str], hashes: FileHashes, threads: int) -> Iterator[bytes | None]:
    """Yield the SHA-256 of each file, from the notebook if the file looks as it did then; None if it cannot be read."""

    def look_up() -> Iterator[tuple[str, bytes | None]]:
        for path in files:
            try:
                yield path, hashes.find(path, Stamp.of(root / path))
            except OSError:
                yield path, None

    def complete(item: tuple[str, bytes | None]) -> tuple[Stamp | None, bytes | None]:
        path, known = item
        try:
            return (None, known) if known else hash_file(root / path)
        except OSError:
            return None, None

    for (path, _), (stamp, digest) in in_order(threads, complete, look_up()):
        if stamp and digest:
            hashes.remember(path, stamp, digest)
        yield digest


def _decodes_alike(path: Path, previous: Previous, row: int) -> bool:
    try:
        waveform = decode(path).waveform
        same = np.array_equal(to_int16(waveform[: whole_hops(len(waveform))])[0], previous.pcm(row))
    except UnusableAudio:
        same = False
    if not same:
        print(f"corpus: {path.name} gives other samples than it did, so all music is read anew", file=sys.stderr)
    return same
