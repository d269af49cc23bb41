"""Shards on an object store: read by byte ranges through fsspec, many at once.

Endpoint and credentials come from the environment, as botocore reads it: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mert_core.data.shards import DTYPE, copy_crops, shard_name
from mert_core.errors import MertError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Between attempts at a request that failed for a reason that may pass."""

_S3_OPTIONS = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "max_pool_connections": 128,  # the default of 10 would make the ranges of a batch wait for each other
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
UPLOAD = "Run `mert upload` where the shards lie."
_ASK = "Check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on this machine, and the network to it."


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return a URL's filesystem, one per process, and the path on it.

    Raises:
        MertError: there is no such protocol, or its package is not installed.
    """
    import fsspec

    protocol, separator, path = url.partition("://")
    if not separator or not path.strip("/"):
        raise MertError(f"{url!r} is no address of an object store; expected, for example, s3://bucket/prefix")
    try:
        # listings are not cached: objects come and go while a process lives
        options: dict[str, Any] = (
            {"config_kwargs": _S3_OPTIONS, "use_listings_cache": False} if protocol == "s3" else {}
        )
        store = fsspec.filesystem(protocol, **options)
        store.retries = 2  # s3fs's own; those here come on top
    except (ImportError, ValueError) as error:
        raise MertError(f"cannot open {url}: {error}. Tried are addresses that begin with s3://.") from error
    return store, store._strip_protocol(url)


class RemoteFolder:
    """Reads files of one folder of an object store, not of folders within. Cheap to pickle for another process.

    Args:
        url: address of the folder, for example ``s3://bucket/prefix/corpus/shards``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of all files, by name, from one listing; empty if there is no such folder.

        Raises:
            MertError: the store cannot be reached, or refuses.
        """
        store, path = filesystem(self.url)
        for wait in (*WAITS_SECONDS, None):
            try:
                listed = store.ls(path, detail=True)
                return {entry["name"].rpartition("/")[2]: entry["size"] for entry in listed if entry["type"] == "file"}
            except FileNotFoundError:
                return {}
            except Exception as error:  # noqa: BLE001 - every library below has exceptions of its own
                _wait_or_raise(error, f"the listing of {self.url}", wait)
        raise AssertionError

    def read(self, names: Sequence[str], starts: Sequence[int], length: int) -> list[bytes]:
        """Return ``length`` bytes of each file from each start on, all requested at once.

        Raises:
            MertError: an object is missing or too short, or the store could not be reached after some attempts.
        """
        store, path = filesystem(self.url)
        blocks: list[Any] = [None] * len(names)
        wanted = list(range(len(names)))
        for wait in (*WAITS_SECONDS, None):
            got = store.cat_ranges(
                [f"{path}/{names[n]}" for n in wanted],
                [starts[n] for n in wanted],
                [starts[n] + length for n in wanted],
                on_error="return",
            )
            failed: dict[int, tuple[BaseException, str]] = {}
            for n, block in zip(wanted, got, strict=True):
                where = f"{self.url}/{names[n]}, bytes {starts[n]} … {starts[n] + length - 1}"
                if isinstance(block, BaseException):
                    _raise_if_permanent(block, where)
                    failed[n] = block, where
                elif len(block) != length:
                    raise MertError(f"{where}: the object ends after {len(block)} of {length} bytes. {UPLOAD}")
                else:
                    blocks[n] = block
            if not failed:
                return blocks
            _wait_or_raise(*next(iter(failed.values())), wait)
            wanted = list(failed)
        raise AssertionError


def _raise_if_permanent(error: BaseException, where: str, remedy: str = UPLOAD) -> None:
    from botocore.exceptions import NoCredentialsError

    if isinstance(error, FileNotFoundError):
        raise MertError(f"{where}: there is no such object or bucket. {remedy}") from error
    if isinstance(error, PermissionError | NoCredentialsError):
        raise MertError(f"{where}: access is refused ({_named(error)}). {_ASK}") from error
    if isinstance(error, OSError) and error.errno == errno.EINVAL:  # HTTP 416: the range begins after the end
        raise MertError(f"{where}: the object ends before these bytes. {remedy}") from error
    if isinstance(error, MertError | ValueError | TypeError) or not isinstance(error, Exception):
        raise error


def _wait_or_raise(error: BaseException, where: str, wait: float | None) -> None:
    """Sleep before the next attempt; ``wait`` is None after the last one."""
    _raise_if_permanent(error, where)
    if wait is None:
        raise MertError(
            f"{where}: cannot be read after {len(WAITS_SECONDS) + 1} attempts ({_named(error)}). {_ASK}"
        ) from error
    time.sleep(wait)


@contextmanager
def explained(where: str, remedy: str) -> Iterator[None]:
    """Turn what an object store says into a MertError that names ``where``."""
    try:
        yield
    except Exception as error:
        _raise_if_permanent(error, where, remedy)
        raise MertError(f"{where}: {_named(error)}. {_ASK}") from error


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class RemoteShards(RemoteFolder):
    """Reads from PCM shards on an object store, as `mert_core.data.shards.ShardReader` does from a folder."""

    remedy = UPLOAD

    def path(self, shard: int) -> str:
        """Return a shard's address."""
        return f"{self.url}/{shard_name(shard)}"

    def view(self, shard: int, offset_samples: int, samples: int) -> NDArray[np.int16]:
        """Download a stretch of a shard, read-only (samples,)."""
        width = DTYPE.itemsize
        blocks = self.read([shard_name(shard)], [offset_samples * width], samples * width)
        return np.frombuffer(blocks[0], dtype=DTYPE)

    def gather(
        self, shards: NDArray[np.int64], starts: NDArray[np.int64], length: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read ``length`` samples from each (shard, start), all requested at once; see `copy_crops`.

        The caller has checked that every stretch lies inside its track.
        """
        names, width = [shard_name(shard) for shard in shards.tolist()], DTYPE.itemsize
        blocks = self.read(names, (starts * width).tolist(), length * width)
        return copy_crops((np.frombuffer(block, dtype=DTYPE) for block in blocks), len(blocks), length, out)
