"""Which audio was met already, on disk: a dictionary of a million hashes and names is 300 MB."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class SeenAudio:
    """Remembers, for the SHA-256 of a track's samples, where they were first met."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a file without a name, gone when it is closed
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA cache_size = -65536")  # KiB
        self._database.execute("CREATE TABLE seen (sha256 BLOB PRIMARY KEY, source TEXT) WITHOUT ROWID")

    def first_with(self, sha256: bytes, source: str) -> str | None:
        """Return the source that had these samples before; None if this one is the first, which is remembered."""
        row = self._database.execute("SELECT source FROM seen WHERE sha256 = ?", (sha256,)).fetchone()
        if row is not None:
            return str(row[0])
        self._database.execute("INSERT INTO seen VALUES (?, ?)", (sha256, source))
        return None

    def add(self, pairs: Iterable[tuple[bytes, str]]) -> None:
        """Remember many (SHA-256, source) that are known to differ."""
        self._database.executemany("INSERT INTO seen VALUES (?, ?)", pairs)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()
