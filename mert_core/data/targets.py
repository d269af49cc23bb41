"""Target stores: names of files, the numbers of a shard, the card that lists them, and their reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.data.manifest import SHARDS_NAME
from mert_core.data.record import read_record
from mert_core.data.remote import UPLOAD, RemoteFolder
from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.errors import MertError
from mert_core.files import write_json

FACTS_NAME = "facts"
INDEX_NAME = "index.parquet"
CHECKSUMS_NAME = "shards.json"

INDEX_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("shard", pa.int32()), ("offset_frames", pa.int64()), ("frames", pa.int64())]
)


@dataclass(frozen=True)
class ShardEntry:
    """What the card says of one shard.

    Attributes:
        shard: number of the PCM shard that it goes with.
        name: file name.
        sha256: hash of its bytes.
        frames: frames of all its tracks.
        pcm_sha256: hash of the PCM shard that was labelled.
        teacher: id of the teacher that labelled it.
        facts_sha256: hash of the file of facts about its tracks.
    """

    shard: int
    name: str
    sha256: str
    frames: int
    pcm_sha256: str
    teacher: str
    facts_sha256: str


def number_type(kind: TargetKind) -> np.dtype[Any]:
    """Return a shard's type of number, little-endian: uint16 for codes, float16 for spectra."""
    return np.dtype("<u2") if isinstance(kind, Codes) else np.dtype("<f2")


def shard_name(shard: int, kind: TargetKind) -> str:
    """Return a shard's file name."""
    return f"{shard:05d}.{'codes' if isinstance(kind, Codes) else 'frames'}"


def facts_name(name: str) -> str:
    """Return the file name of the facts about a shard's tracks."""
    return f"{name.partition('.')[0]}.npz"


def write_card(folder: Path, teacher: str, teacher_id: str, kind: TargetKind, shards: Iterable[ShardEntry]) -> None:
    """Write ``shards.json``: whose targets these are, what they look like, and every shard's checksums."""
    form = {"codes": asdict(kind)} if isinstance(kind, Codes) else {"spectrum": asdict(kind)}
    write_json(
        folder / CHECKSUMS_NAME,
        {"teacher": teacher, "teacher_id": teacher_id, "kind": form, "shards": [asdict(shard) for shard in shards]},
    )


def entries_of(card: dict[str, Any]) -> list[ShardEntry]:
    """Return a card's shards.

    Raises:
        KeyError, TypeError: the card is not one of this version.
    """
    return [ShardEntry(**entry) for entry in card["shards"]]


class _LocalShards:
    """Shards that are memory-mapped, each verified by its SHA-256 when it is first read."""

    def __init__(self, folder: Path, entries: dict[int, ShardEntry], kind: TargetKind) -> None:
        self._folder, self._entries, self._kind = folder, entries, kind
        self._open: dict[int, NDArray[Any]] = {}

    def read(self, shards: NDArray[Any], begins: NDArray[np.int64], frames: int) -> list[NDArray[Any]]:
        """Return read-only (frames, width) as stored, for each shard and first frame."""
        pairs = zip(shards.tolist(), begins.tolist(), strict=True)
        return [self._shard(shard)[begin : begin + frames] for shard, begin in pairs]

    def _shard(self, shard: int) -> NDArray[Any]:
        if shard in self._open:
            return self._open[shard]
        entry = self._entries[shard]
        path = self._folder / SHARDS_NAME / entry.name
        if not path.exists():
            raise MertError(f"target shard {path} is missing. {_remedy(self._folder)}")
        content = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
        sha256 = hashlib.sha256(content.data).hexdigest()
        if sha256 != entry.sha256:
            raise MertError(
                f"target shard {path} has changed since it was written: its SHA-256 is {sha256[:16]}…, expected "
                f"{entry.sha256[:16]}…. Remove {self._folder}, then: {_remedy(self._folder)}"
            )
        plain = content.view(np.ndarray)  # slicing np.memmap itself costs microseconds per crop
        self._open[shard] = plain.view(number_type(self._kind)).reshape(-1, self._kind.width)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a memory map does not travel; it is verified again where it arrives


class _RemoteShards:
    """Shards on an object store. Only their sizes are checked, here: `mert upload` has compared the rest."""

    def __init__(self, url: str, entries: dict[int, ShardEntry], kind: TargetKind) -> None:
        self._remote, self._kind = RemoteFolder(url), kind
        self._names = {shard: entry.name for shard, entry in entries.items()}
        self._frame_bytes = kind.width * number_type(kind).itemsize
        sizes = self._remote.sizes()
        for entry in entries.values():
            expected, size = entry.frames * self._frame_bytes, sizes.get(entry.name)
            if size != expected:
                state = "is missing" if size is None else f"has {size} bytes"
                raise MertError(f"{self._remote.url}/{entry.name} {state}; expected {expected} bytes. {UPLOAD}")

    def read(self, shards: NDArray[Any], begins: NDArray[np.int64], frames: int) -> list[NDArray[Any]]:
        """Return the same as `_LocalShards`, all requested at once."""
        names = [self._names[shard] for shard in shards.tolist()]
        blocks = self._remote.read(names, (begins * self._frame_bytes).tolist(), frames * self._frame_bytes)
        return [np.frombuffer(block, number_type(self._kind)).reshape(frames, self._kind.width) for block in blocks]


def _remedy(folder: Path) -> str:
    """Return what to do about a store that is missing or damaged."""
    return f"Run `dvc checkout`, or `mert targets {folder.name}`."


_NUMBERS = ("shard", "offset_frames", "frames")


class TargetStore:
    """Read access to a teacher's targets. A row is an index into the corpus's manifest. Cheap to open and to pickle.

    Attributes:
        folder: folder of index, card, shards and record.
        teacher: name of the teacher.
        teacher_id: id of the teacher's record.
        kind: codes or a spectrum, and how many numbers per frame.
        frames: (tracks,) frames of every track.
    """

    def __init__(self, folder: Path, index: pa.Table, card: dict[str, Any], copy: str | None = None) -> None:
        self.folder = folder
        self.teacher: str = card["teacher"]
        self.teacher_id: str = card["teacher_id"]
        ((name, numbers),) = card["kind"].items()
        self.kind: TargetKind = {"codes": Codes, "spectrum": Spectrum}[name](**numbers)
        self._shard, self._offset, self.frames = (index[name].to_numpy() for name in _NUMBERS)
        entries = {entry.shard: entry for entry in entries_of(card)}
        self._shards: _LocalShards | _RemoteShards = (
            _LocalShards(folder, entries, self.kind)
            if copy is None
            else _RemoteShards(f"{copy}/{SHARDS_NAME}", entries, self.kind)
        )

    @classmethod
    def open(cls, folder: Path, shards: str | None = None) -> TargetStore:
        """Open what ``mert targets`` wrote. Checksums are verified when a shard is first read.

        Args:
            folder: folder of index, card, shards and record.
            shards: address of the folder's copy on an object store, to read the shards from there; None: they lie in
                the folder.

        Raises:
            MertError: it is missing or unreadable, or shards on the object store are of other sizes.
        """
        read_record(folder)
        try:
            card = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
            return cls(folder, pq.read_table(folder / INDEX_NAME, columns=list(_NUMBERS)), card, shards)
        except (OSError, pa.ArrowInvalid, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MertError(f"the targets in {folder} are damaged ({error}). {_remedy(folder)}") from error

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[Any]:
        """Return equally long stretches of targets.

        Args:
            rows: (batch,) rows of tracks.
            offset_frames: (batch,) first frame of each stretch within its track.
            frames: frames per stretch.

        Returns:
            int64 (batch, frames, codebooks), or float32 (batch, frames, bins).

        Raises:
            IndexError: a stretch does not lie inside its track.
            MertError: a shard's bytes are not those that were written.
        """
        rows, starts = np.asarray(rows, dtype=np.int64), np.asarray(offset_frames, dtype=np.int64)
        outside = (starts < 0) | (starts + frames > self.frames[rows])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise IndexError(
                f"{frames} frames from {starts[first]} on of row {rows[first]}, which has {self.frames[rows[first]]}"
            )
        out = np.empty((len(rows), frames, self.kind.width), np.int64 if isinstance(self.kind, Codes) else np.float32)
        stretches = self._shards.read(self._shard[rows], self._offset[rows] + starts, frames)
        for row, stretch in zip(out, stretches, strict=True):
            row[:] = stretch
        return out

    def track(self, row: int) -> NDArray[Any]:
        """Return a whole track's targets, read-only, uint16 (frames, codebooks) or float16 (frames, bins)."""
        return self._shards.read(self._shard[[row]], self._offset[[row]], int(self.frames[row]))[0]
