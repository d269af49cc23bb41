"""SHA-256 of source files, remembered as long as their size and times say that they have not been touched."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_SETTLED_NS = 2_000_000_000  # a file touched since may be written again within one tick of its file system's clock

_SAVE_EVERY = 256  # files: what a killed run has to hash again


class Stamp(NamedTuple):
    """What a file looked like. The change time cannot be set back, so a file rewritten under its old date differs."""

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file.

        Raises:
            OSError: it cannot be looked at.
        """
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def hash_file(path: Path) -> tuple[Stamp, bytes]:
    """Return a regular file's stamp, taken before it was read, and the SHA-256 (32 bytes) of its content.

    Raises:
        OSError: it cannot be read.
    """
    stamp = Stamp.of(path)
    if not path.is_file():  # a named pipe would be waited for
        raise OSError(errno.EINVAL, "no regular file")
    with path.open("rb") as stream:
        return stamp, hashlib.file_digest(stream, "sha256").digest()


class FileHashes:
    """A notebook in ``folder`` about the music under ``root``; lost or damaged it costs time, never correctness."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._path = folder / f"hashes-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.sqlite"
        self._unsaved = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = self._open(str(self._path))
        except (OSError, sqlite3.Error):
            try:  # without what is damaged
                self._path.unlink(missing_ok=True)
                self._database = self._open(str(self._path))
            except (OSError, sqlite3.Error) as error:
                logger.warning("%s cannot be used (%s): the music is hashed again next time", self._path, error)
                self._database = self._open(":memory:")

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path)
        database.execute(
            "CREATE TABLE IF NOT EXISTS files "
            "(path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, sha256 BLOB) WITHOUT ROWID"
        )
        database.execute("SELECT count(sha256) FROM (SELECT sha256 FROM files LIMIT 1)")  # fails if it is damaged
        return database

    def find(self, path: str, stamp: Stamp) -> bytes | None:
        """Return a file's SHA-256 (32 bytes), if it looks as it did then."""
        query = "SELECT sha256 FROM files WHERE path = ? AND (size, modified, changed) = (?, ?, ?)"
        row = self._database.execute(query, (os.fsencode(path), *stamp)).fetchone()
        return row[0] if row else None

    def remember(self, path: str, stamp: Stamp, sha256: bytes) -> None:
        """Note down a file's SHA-256, unless it was touched a moment ago."""
        if time.time_ns() - max(stamp.modified_ns, stamp.changed_ns) > _SETTLED_NS:
            query = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"
            self._database.execute(query, (os.fsencode(path), *stamp, sha256))
            self._unsaved += 1
            if self._unsaved >= _SAVE_EVERY:
                self._database.commit()
                self._unsaved = 0

    def close(self) -> None:
        """Save what was noted down."""
        self._database.commit()
        self._database.close()
