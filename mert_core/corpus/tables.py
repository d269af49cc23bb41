"""Parquet, always written the same way; in pieces when a table may be too large for memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mert_core.errors import MertError

_FLUSH_ROWS = 16384


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table; equal tables give equal bytes."""
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read a whole table.

    Raises:
        MertError: the file is missing or damaged.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise MertError(f"cannot read the table {path}: {error}. Run `dvc repro` (or `dvc pull`).") from error


class TableWriter:
    """Writes rows as they come. Without a schema the first rows give it, numpy scalars included.

    The file appears with the first row: no rows, no file.
    """

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        self._path = path
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self.count = 0

    def append(self, row: dict[str, Any]) -> None:
        """Take one row.

        Raises:
            ValueError: its keys differ from the first row's.
        """
        if self._schema is not None and set(row) != set(self._schema.names):
            raise ValueError(f"{self._path.name}: row has {sorted(row)}, the table has {sorted(self._schema.names)}")
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._schema is None:
            keys = list(self._rows[0])
            differing = next((row for row in self._rows if set(row) != set(keys)), None)
            if differing is not None:
                raise ValueError(f"{self._path.name}: one row has {sorted(keys)}, another {sorted(differing)}")
            self._schema = pa.Table.from_pylist(self._rows, schema=None).schema
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._writer.write_table(table)
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            if self._writer is not None:
                self._writer.close()
