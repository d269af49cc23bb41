"""Atomic, byte-stable writes and content hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mert_core.errors import MertError

_NEW, _OLD = "unfinished-", "replaced-"  # in the names of folders that should be gone soon


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys, so that equal values give equal bytes. NaN is refused."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say so, in place of a traceback, when ``path`` cannot be written.

    Raises:
        MertError: the operating system refused.
    """
    from safetensors import SafetensorError  # its writer wraps what the system says

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MertError(
            f"cannot write {path}: {reason}. Give a place where you may write, on a disk with space."
        ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system cannot link."""
    try:
        # a link to what a symbolic link points to, which is how DVC may lay files out
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, canonical_json(value))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces the folder ``path`` when the block ends without an error.

    On an error nothing is left behind and what stood at ``path`` before still stands there, as it does while the block
    runs. What a killed process left of its own attempt is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_NEW}", dir=path.parent))
    lock = os.open(temporary, os.O_RDONLY)
    try:
        _lock(lock)
        temporary.chmod(0o755)
        yield temporary
        old = temporary.with_name(temporary.name.replace(f".{_NEW}", f".{_OLD}"))
        if path.exists():
            path.replace(old)  # removing takes long, and a process that is killed meanwhile must leave one of the two
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _lock(folder: int) -> bool:
    """Lock an open folder until it is closed, at the latest by the end of this process; False if another has it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tidy(path: Path) -> None:
    """Put back what a process that was killed had moved away from ``path``, and remove what it had begun."""
    own = tuple(f".{path.name}.{kind}" for kind in (_NEW, _OLD))
    for left in sorted(item for item in path.parent.iterdir() if item.name.startswith(own) and item.is_dir()):
        lock = os.open(left, os.O_RDONLY)
        try:
            if not _lock(lock):
                continue
            if left.name.startswith(own[1]) and not path.exists():
                left.replace(path)
            else:
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)
