"""Reading what comes with a data set: label tables, and which sound files are there."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mert_core.errors import MertError

ABSENT, EMPTY = "no sound file", "empty sound file"


def read_text(path: Path, what: str) -> str:
    """Return a label file's text.

    Args:
        path: the label file.
        what: for the error message: what the file should say, and where to get it.

    Raises:
        MertError: it is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MertError(f"{path} is not UTF-8 text ({error.reason}); expected {what}") from error
    except OSError as error:
        raise MertError(f"cannot read {path}: {error.strerror}; expected {what}") from error


def read_rows(path: Path, what: str, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Return a table's rows that hold anything, each with the number of its (last) line; the header comes first.

    Raises:
        MertError: the file is missing, empty or no table.
    """
    reader = csv.reader(io.StringIO(read_text(path, what)), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise MertError(f"{path}, line {reader.line_num}: {error}; expected {what}") from error
    if not rows:
        raise MertError(f"{path} is empty; expected {what}")
    return rows


def read_table(path: Path, columns: Iterable[str], what: str, delimiter: str = ",") -> list[dict[str, str]]:
    """Read the named columns of a table with a header; blanks around names and cells do not count.

    Raises:
        MertError: the file is missing, lacks a column, or has a row that lacks a cell.
    """
    (_, header), *lines = read_rows(path, what, delimiter)
    header = [name.strip() for name in header]
    if missing := [name for name in columns if name not in header]:
        found = ", ".join(header[:8])
        raise MertError(f"{path} has no column {', '.join(missing)}; its header begins {found}; expected {what}")
    columns_at = {name: header.index(name) for name in columns}
    rows = []
    for line, row in lines:
        if len(row) <= max(columns_at.values()):
            raise MertError(f"{path}, line {line}: {len(row)} cells, expected {len(header)}; {what}")
        rows.append({name: row[column].strip() for name, column in columns_at.items()})
    return rows


def number(text: str, path: Path, what: str) -> float:
    """Return a cell as a finite number.

    Raises:
        MertError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MertError(f"{path}: {what} is {text!r}; expected a number")
    return value


def lack(path: Path) -> str:
    """Return why a sound file cannot be used without opening it: `ABSENT`, `EMPTY`, or nothing."""
    if not path.is_file():
        return ABSENT
    return "" if path.stat().st_size else EMPTY


def count_sound(paths: Iterable[Path]) -> tuple[int, int]:
    """Return how many of some sound files hold bytes, and how many are there but empty."""
    lacks = Counter(lack(path) for path in paths)
    return lacks[""], lacks[EMPTY]


def usable(path: Path, left_out: Counter[str]) -> bool:
    """Return whether a sound file holds bytes; if not, count it in ``left_out`` by its reason."""
    reason = lack(path)
    left_out.update([reason] if reason else [])
    return not reason


def find_audio(folders: Iterable[Path], stems: Iterable[str], suffixes: Iterable[str]) -> Path:
    """Return the first file of one of these names that is there, or the first that should be."""
    paths = [folder / f"{stem}{suffix}" for folder in folders for stem in stems for suffix in suffixes]
    return next((path for path in paths if path.is_file()), paths[0])


def md5(path: Path) -> str:
    """Return a file's MD5, hexadecimal: what old sets publish."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
