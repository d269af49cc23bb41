"""Parquet, always written the same way; in pieces when a table may be too large for memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.errors import MertError

_FLUSH_ROWS = 16384

Rows: TypeAlias = "pa.Table | Path"
"""A table in memory, or the Parquet file of one that may be too large for it."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table; equal tables give equal bytes."""
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table, whole or some of its columns.

    Raises:
        MertError: the file is missing or damaged, or has no such column.
    """
    with open_parquet(path) as file:
        missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
        if missing:
            raise MertError(f"{path} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}")
        try:
            return file.read(columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise _unreadable(path, error) from error


def select(rows: Rows, *columns: str) -> pa.Table:
    """Return a few columns; from a file, no others are read."""
    return rows.select(list(columns)) if isinstance(rows, pa.Table) else read_table(rows, list(columns))


def count_rows(rows: Rows) -> int:
    """Return the number of rows; a file's data are not read."""
    return rows.num_rows if isinstance(rows, pa.Table) else open_parquet(rows).metadata.num_rows


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        MertError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def in_groups(rows: Rows, size: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield tables of ``size`` rows, the last one shorter, however the file or the table itself is cut.

    Raises:
        MertError: the file is missing or damaged.
    """
    if isinstance(rows, pa.Table):
        table = rows if columns is None else rows.select(columns)
        yield from (table.slice(first, size) for first in range(0, len(table), size))
        return
    try:
        with open_parquet(rows) as file:
            waiting: list[pa.RecordBatch] = []
            count = 0
            for batch in file.iter_batches(size, columns=columns):
                waiting.append(batch)
                count += len(batch)
                if count >= size:
                    table = pa.Table.from_batches(waiting)
                    yield table.slice(0, size)
                    waiting, count = table.slice(size).to_batches(), count - size
            if count:
                yield pa.Table.from_batches(waiting)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(rows, error) from error


def _unreadable(path: Path, error: Exception) -> MertError:
    return MertError(f"cannot read the table {path}: {error}. Run `dvc repro` (or `dvc pull`).")


class TableWriter:
    """Writes rows as they come. Without a schema the first rows give it, numpy scalars included.

    The file appears with the first row: no rows, no file.
    """

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        self._path = path
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._ended = False
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

    def extend(self, table: pa.Table) -> None:
        """Take many rows."""
        self._flush()
        self._write(table)
        self.count += len(table)

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._schema is None:
            keys = list(self._rows[0])
            differing = next((row for row in self._rows if set(row) != set(keys)), None)
            if differing is not None:
                raise ValueError(f"{self._path.name}: one row has {sorted(keys)}, another {sorted(differing)}")
            self._schema = pa.Table.from_pylist(self._rows, schema=None).schema
        self._write(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def _write(self, table: pa.Table) -> None:
        if self._ended:
            raise ValueError(f"{self._path.name} is finished; no more rows can be written")
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema or table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Write what is still to be written and end the file."""
        try:
            self._flush()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._end()


_GROUP_ROWS = 16384


def hashes(rows: Rows, column: str) -> NDArray[np.uint64]:
    """Return 64 bits of BLAKE2b of each text of a column (rows,).

    Of a million different texts, two have the same in 1 of 37 million cases.
    """
    result = np.empty(count_rows(rows), np.uint64)
    first = 0
    for group in in_groups(rows, _GROUP_ROWS, [column]):
        texts = (str(text).encode() for text in group[column].to_pylist())
        digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
        result[first : first + len(group)] = np.frombuffer(digests, np.uint64)
        first += len(group)
    return result


def numbers(rows: Rows, column: str, values: Sequence[str]) -> NDArray[np.int8]:
    """Return for each row which of the values it has in a column (rows,); −1 for another or none."""
    result = np.empty(count_rows(rows), np.int8)
    first = 0
    for group in in_groups(rows, _GROUP_ROWS, [column]):
        result[first : first + len(group)] = pc.index_in(group[column], pa.array(values)).fill_null(-1).to_numpy()
        first += len(group)
    return result


def repeated(rows: Rows, column: str) -> list[str]:
    """Return the texts that several rows of a column have, sorted."""
    hashed = hashes(rows, column)
    order = np.argsort(hashed)
    same = np.flatnonzero(hashed[order][1:] == hashed[order][:-1])
    suspects = _take(rows, np.union1d(order[same], order[same + 1]), column)
    counted = suspects.group_by(column).aggregate([([], "count_all")])
    return sorted(counted.filter(pc.greater(counted["count_all"], 1))[column].to_pylist())


def with_several(rows: Rows, column: str, other: str, values: Sequence[str]) -> list[str]:
    """Return the texts of a column whose rows have several of the values in another column, sorted."""
    hashed, of_row = hashes(rows, column), numbers(rows, other, values)
    order = np.argsort(hashed)
    order = order[of_row[order] >= 0]
    starts = np.flatnonzero(np.append(True, np.diff(hashed[order]) != 0)) if len(order) else order
    low, high = (function.reduceat(of_row[order], starts) for function in (np.minimum, np.maximum))
    suspects = _take(rows, np.flatnonzero(np.isin(hashed, hashed[order][starts[low != high]])), column, other)
    listed = suspects.filter(pc.is_in(suspects[other], value_set=pa.array(values)))
    counted = listed.group_by(column).aggregate([(other, "count_distinct")])
    return sorted(counted.filter(pc.greater(counted[f"{other}_count_distinct"], 1))[column].to_pylist())


def _take(rows: Rows, which: NDArray[np.int64], *columns: str) -> pa.Table:
    """Return a few rows; in a good manifest there are none, and nothing is read."""
    parts, first = [], 0
    for group in in_groups(rows, _GROUP_ROWS, list(columns)) if len(which) else ():
        here = which[(which >= first) & (which < first + len(group))] - first
        parts.append(group.take(pa.array(here)))
        first += len(group)
    return pa.concat_tables(parts) if parts else pa.table({name: pa.array([], pa.string()) for name in columns})
