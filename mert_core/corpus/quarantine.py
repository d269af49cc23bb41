"""What was left out of the corpus, and why."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mert_core.audio.unusable import UnusableAudio
from mert_core.corpus.tables import write_table

QUARANTINE_NAME = "quarantine.parquet"
SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Rejected:
    """A file that a source could not turn into a track."""

    path: str
    why: UnusableAudio


def printable(path: str) -> str:
    """Return a path that can be stored as UTF-8; bytes that are no UTF-8 appear as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Quarantine:
    """Collects rejected files in the order in which they were met."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, rejected: Rejected) -> None:
        """Take in one file."""
        self.rows.append(
            {"path": printable(rejected.path), "reason": rejected.why.reason, "detail": rejected.why.detail}
        )

    def counts(self) -> dict[str, int]:
        """Return how many files each reason has, commonest first."""
        counted = Counter(row["reason"] for row in self.rows)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def summary(self) -> str:
        """Return the counts as text: ``3 truncated, 1 silent``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts().items())

    def write(self, folder: Path) -> None:
        """Write ``quarantine.parquet``, empty or not."""
        write_table(folder / QUARANTINE_NAME, pa.Table.from_pylist(self.rows, schema=SCHEMA))
