"""`mert upload`: the shards of corpus and targets to an object store, where training can read them from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mert_core.data.record import RECORD_NAME, read_record
from mert_core.data.remote import RemoteFolder, explained, filesystem
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SHARDS_NAME = "shards"
_PART_BYTES = 32 * 2**20  # of a multipart upload; objects below twice that go in one piece
_SHARDS_AT_ONCE, _PARTS_AT_ONCE = 2, 4
_HEADS_AT_ONCE = 32
_BUCKET = "Does the bucket exist?"
_HASH_KEY = "sha256"  # in the object's metadata


@dataclass(frozen=True)
class Shard:
    """A file to copy.

    Attributes:
        path: here.
        folder: address of the folder that receives it.
        sha256: what the stage's record says of it.
        size: in bytes.
    """

    path: Path
    folder: str
    sha256: str
    size: int

    @property
    def url(self) -> str:
        """The object's address."""
        return f"{self.folder}/{self.path.name}"


def upload(layout: Layout, url: str) -> str:
    """Copy all shards that the records of corpus and targets name; return what was done.

    An object that is there with the same size and SHA-256 is skipped, so that an interrupted upload goes on where it
    was; an object appears only when it is whole. Nothing is ever deleted.

    Args:
        layout: whose ``data`` is copied.
        url: ``s3://bucket/prefix``; the bucket exists.

    Raises:
        MertError: nothing to copy, a shard is not what its record says, or the store cannot be written or refuses.
    """
    if not url.startswith("s3://"):
        raise MertError(f"--to {url}: `mert upload` knows s3:// alone. Copy data/ with that store's own tools.")
    shards = list_shards(layout, url)
    store, _ = filesystem(url)
    missing = _missing(store, shards)
    _copy_all(store, missing)
    sizes = _sizes_there(shards)
    for shard in shards:
        if (size := sizes.get(shard.url)) != shard.size:
            raise MertError(
                f"{shard.url} has {size} bytes after the upload, expected {shard.size}. Does something else write "
                "there? Run the command again."
            )
    total, sent = (sum(shard.size for shard in some) / 1e9 for some in (shards, missing))
    return (
        f"{len(shards)} shards ({total:.3g} GB) lie under {url}, sizes verified: {len(missing)} copied now "
        f"({sent:.3g} GB), {len(shards) - len(missing)} there before. To train from there: storage.shards: {url}"
    )


def list_shards(layout: Layout, url: str) -> list[Shard]:
    """Return the shards that the records of ``data/corpus`` and of the folders in ``data/targets`` name.

    Raises:
        MertError: there is no corpus, or a shard is missing.
    """
    read_record(layout.corpus)  # says what to do if there is none
    targets = layout.data / "targets"
    folders = [layout.corpus, *(sorted(targets.iterdir()) if targets.is_dir() else ())]
    shards = []
    for folder in folders:
        if not (folder / RECORD_NAME).is_file():
            continue
        for name, sha256 in sorted(read_record(folder).files.items()):
            path = folder / name
            if SHARDS_NAME not in Path(name).parts[:-1]:
                continue
            if not path.is_file():
                raise MertError(f"{path} is missing, though the record beside it names it. Run `dvc pull`.")
            shards.append(Shard(path, layout.copy_of(path.parent, url), sha256, path.stat().st_size))
    return shards


def _sizes_there(shards: list[Shard]) -> dict[str, int]:
    """Return the sizes of all objects in the folders of the shards, by address."""
    folders = sorted({shard.folder for shard in shards})
    return {f"{folder}/{name}": size for folder in folders for name, size in RemoteFolder(folder).sizes().items()}


def _missing(store: AbstractFileSystem, shards: list[Shard]) -> list[Shard]:
    """Return the shards that are not there with the same size and SHA-256: sizes from listings, sums from metadata."""
    sizes = _sizes_there(shards)

    def is_there(shard: Shard) -> bool:
        if sizes.get(shard.url) != shard.size:
            return False
        with explained(shard.url, _BUCKET):
            return store.metadata(shard.url).get(_HASH_KEY) == shard.sha256

    with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
        there = list(tqdm(pool.map(is_there, shards), "compare", len(shards), unit=" shards", dynamic_ncols=True))
    return [shard for shard, known in zip(shards, there, strict=True) if not known]


def _copy_all(store: AbstractFileSystem, shards: list[Shard]) -> None:
    total = sum(shard.size for shard in shards)
    counting, stopping = threading.Lock(), threading.Event()
    with tqdm(desc="upload", unit="B", unit_scale=True, total=total, dynamic_ncols=True) as bar:

        def advance(count: int) -> None:
            if stopping.is_set():
                raise MertError("the upload was stopped")  # ends the parts that are still under way
            with counting:
                bar.update(count)

        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            try:
                list(pool.map(lambda shard: _copy(store, shard, advance), shards))
            except BaseException:
                stopping.set()
                pool.shutdown(cancel_futures=True)
                raise


def _copy(store: AbstractFileSystem, shard: Shard, advance: Callable[[int], None]) -> None:
    from fsspec.callbacks import Callback

    class Progress(Callback):
        def relative_update(self, inc: int = 1) -> None:
            advance(inc)

    sha256 = sha256_file(shard.path)
    if sha256 != shard.sha256:
        raise MertError(
            f"{shard.path} has changed since it was written: its SHA-256 is {sha256[:16]}…, expected "
            f"{shard.sha256[:16]}…. Run `dvc checkout --force`."
        )
    with explained(shard.url, _BUCKET):
        store.put_file(
            str(shard.path),
            shard.url,
            callback=Progress(),
            Metadata={_HASH_KEY: shard.sha256},
            chunksize=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
