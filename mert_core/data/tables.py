"""Parquet, always written the same way; row by row or group by group where a table may be larger than memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.errors import MertError

GROUP_ROWS = 16384  # rows that are held at a time


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table; equal tables give equal bytes."""
    pq.write_table(table, path, compression="zstd")


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for a ``with`` block.

    Raises:
        MertError: it is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise MertError(f"cannot read the table {path}: {error}. Run `dvc repro` (or `dvc pull`).") from error


def read_table(path: Path, *columns: str) -> pa.Table:
    """Read a table: the columns named, or all of it.

    Raises:
        MertError: the file is missing or damaged, or has no such column.
    """
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if missing := sorted(set(columns) - set(names)):
            raise MertError(f"{path} has no column {', '.join(missing)}; it has {', '.join(names)}")
        return file.read(list(columns) or None)


def in_groups(path: Path, size: int, *columns: str) -> Iterator[pa.Table]:
    """Yield a table in pieces of ``size`` rows, the last one shorter, whatever row groups the file has.

    Raises:
        MertError: the file is missing or damaged.
    """
    with open_parquet(path) as file:
        for batch in file.iter_batches(size, columns=list(columns) or None):
            yield pa.Table.from_batches([batch])


def hash_column(path: Path, column: str) -> NDArray[np.uint64]:
    """Return 64 bits of BLAKE2b of each text of a column (rows,), read-only.

    Of a million different texts, two have the same in 1 of 37 million cases.
    """
    digests = (
        b"".join(hashlib.blake2b(str(text).encode(), digest_size=8).digest() for text in group[column].to_pylist())
        for group in in_groups(path, GROUP_ROWS, column)
    )
    return np.frombuffer(b"".join(digests), np.uint64)


class TableWriter:
    """Writes rows as they come. Without a schema the first rows give it, numpy scalars included.

    The file appears with the first rows: no rows, no file.
    """

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        self._path, self._schema = path, schema
        self._keys: Set[str] | None = None if schema is None else set(schema.names)
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._closed = False

    def append(self, row: dict[str, Any]) -> None:
        """Take one row.

        Raises:
            ValueError: its keys differ from the schema's or the first row's.
        """
        if self._keys is None:
            self._keys = set(row)
        if row.keys() != self._keys:
            raise ValueError(f"{self._path.name}: a row has {sorted(row)}, the table has {sorted(self._keys)}")
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def extend(self, table: pa.Table) -> None:
        """Take many rows."""
        self._flush()
        self._write(table)

    def _flush(self) -> None:
        if self._rows:
            self._write(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()

    def _write(self, table: pa.Table) -> None:
        if self._closed:
            raise ValueError(f"{self._path.name} is finished; no more rows can be written")
        if self._writer is None:
            self._schema = self._schema or table.schema
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Write what is still to be written and end the file."""
        try:
            self._flush()
        finally:
            self._closed = True
            if self._writer is not None:
                self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._rows.clear()  # half a table is not written
        self.close()
