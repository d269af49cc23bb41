"""The target store: what one teacher says of every frame, in checksummed shards aligned to the corpus's PCM shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.audio.remote import UPLOAD, RemoteFolder
from mert_core.errors import MertError
from mert_core.records import Record, read_record
from mert_core.targets.form import CHECKSUMS_NAME, INDEX_NAME, SHARDS_NAME, ShardEntry, entries_of, kind_of, number_type
from mert_core.teachers.base import Codes

_NUMBERS = ("shard", "offset_frames", "frames")


class TargetStore:
    """Read access to a teacher's targets. A row is an index into the corpus's manifest. Cheap to open and to pickle.

    Attributes:
        folder: where it lies.
        teacher: name of the teacher.
        teacher_id: the id of its record.
        kind: what the targets are, codes or spectra, and how many per frame.
    """

    def __init__(self, folder: Path, index: pa.Table, card: dict[str, Any], remote: RemoteFolder | None = None) -> None:
        self.folder = folder
        self._remote = remote
        self.teacher: str = card["teacher"]
        self.teacher_id: str = card["teacher_id"]
        self.kind = kind_of(card)
        self._entries: dict[int, ShardEntry] = {entry.shard: entry for entry in entries_of(card)}
        self._shard, self._offset, self._frames = (index[name].to_numpy() for name in _NUMBERS)
        self._open: dict[int, NDArray[Any]] = {}

    @classmethod
    def open(cls, folder: Path, shards: str | None = None) -> TargetStore:
        """Open what ``mert targets`` wrote. Checksums are verified when a shard is first read.

        Args:
            folder: where it lies.
            shards: address of the folder's copy on an object store, to read the shards from there; of those only the
                sizes are checked here, `mert upload` has compared the rest. None: they lie in the folder.

        Raises:
            MertError: it is missing or unreadable.
        """
        read_record(folder)
        try:
            card = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
            remote = None if shards is None else RemoteFolder(f"{shards}/{SHARDS_NAME}")
            store = cls(folder, pq.read_table(folder / INDEX_NAME, columns=list(_NUMBERS)), card, remote)
        except (OSError, pa.ArrowInvalid, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MertError(f"the targets in {folder} are damaged ({error}). {_again(folder)}") from error
        store._check_remote_sizes()
        return store

    @property
    def record(self) -> Record:
        """The stage's record; its ``id`` is the targets'."""
        return read_record(self.folder)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frames(self) -> NDArray[np.int64]:
        """Frames of every track (tracks,)."""
        return self._frames

    @property
    def codebooks(self) -> int:
        """Codes per frame.

        Raises:
            MertError: the teacher gives spectra.
        """
        return self._codes.codebooks

    @property
    def entries(self) -> int:
        """Values per code.

        Raises:
            MertError: the teacher gives spectra.
        """
        return self._codes.entries

    @property
    def _codes(self) -> Codes:
        if not isinstance(self.kind, Codes):
            raise MertError(f"{self.folder} holds the spectra of {self.teacher} ({self.kind}), but codes are wanted")
        return self.kind

    def read(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[Any]:
        """Return equally long stretches of targets.

        Args:
            rows: (batch,) tracks.
            offset_frames: (batch,) first frame of each stretch within its track.
            frames: frames per stretch.

        Returns:
            int64 (batch, frames, codebooks), or float32 (batch, frames, bins).

        Raises:
            IndexError: a stretch does not lie inside its track.
            MertError: a shard's bytes are not those that were written.
        """
        rows, starts = np.asarray(rows, dtype=np.int64), np.asarray(offset_frames, dtype=np.int64)
        outside = (starts < 0) | (starts + frames > self._frames[rows])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise IndexError(
                f"{frames} frames from {starts[first]} on of row {rows[first]}, which has {self._frames[rows[first]]}"
            )
        out = np.empty((len(rows), frames, self.kind.width), np.int64 if isinstance(self.kind, Codes) else np.float32)
        if self._remote is not None:
            blocks = self._from_remote(self._remote, self._shard[rows], self._offset[rows] + starts, frames)
            for place, block in enumerate(blocks):
                out[place] = block
            return out
        for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
            begin = self._offset[row] + start
            out[place] = self._shard_of(int(self._shard[row]))[begin : begin + frames]
        return out

    def codes(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
        """Return equally long stretches of codes, int64 (batch, frames, codebooks), as `read` does.

        Raises:
            MertError: the teacher gives spectra.
        """
        assert self._codes
        return self.read(rows, offset_frames, frames)

    def track(self, row: int) -> NDArray[Any]:
        """Return a whole track's targets, read-only, uint16 (frames, codebooks) or float16 (frames, bins)."""
        begin = self._offset[row]
        if self._remote is not None:
            where = self._shard[[row]], self._offset[[row]]
            return self._from_remote(self._remote, *where, int(self._frames[row]))[0]
        return self._shard_of(int(self._shard[row]))[begin : begin + self._frames[row]]

    @property
    def _frame_bytes(self) -> int:
        return self.kind.width * number_type(self.kind).itemsize

    def _from_remote(
        self, remote: RemoteFolder, shards: NDArray[np.int32], begins: NDArray[np.int64], frames: int
    ) -> list[NDArray[Any]]:
        names = [self._entries[shard].name for shard in shards.tolist()]
        blocks = remote.read(names, (begins * self._frame_bytes).tolist(), frames * self._frame_bytes)
        return [np.frombuffer(block, number_type(self.kind)).reshape(frames, self.kind.width) for block in blocks]

    def _check_remote_sizes(self) -> None:
        if self._remote is None:
            return
        sizes = self._remote.sizes()
        for entry in self._entries.values():
            expected, found = entry.frames * self._frame_bytes, sizes.get(entry.name)
            if found != expected:
                state = "is missing" if found is None else f"has {found} bytes"
                raise MertError(f"{self._remote.url}/{entry.name} {state}; expected {expected} bytes. {UPLOAD}")

    def _shard_of(self, shard: int) -> NDArray[Any]:
        if shard not in self._open:
            self._open[shard] = self._verified(shard)
        return self._open[shard]

    def _verified(self, shard: int) -> NDArray[Any]:
        entry = self._entries[shard]
        path = self.folder / SHARDS_NAME / entry.name
        if not path.exists():
            raise MertError(f"target shard {path} is missing. {_again(self.folder)}")
        content = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
        found = hashlib.sha256(content.data).hexdigest()
        if found != entry.sha256:
            raise MertError(
                f"target shard {path} has changed since it was written: its SHA-256 is {found[:16]}…, expected "
                f"{entry.sha256[:16]}…. Remove {self.folder}, then: {_again(self.folder)}"
            )
        plain = content.view(np.ndarray)  # slicing np.memmap itself costs microseconds per crop
        return plain.view(number_type(self.kind)).reshape(-1, self.kind.width)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a memory map does not travel; it is verified again where it arrives


def _again(folder: Path) -> str:
    return f"Run `dvc checkout`, or `mert targets {folder.name}`."
