"""Reading a folder of music: any tree of wav, flac, ogg, opus or mp3 files, of any rate and any number of channels."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mert_core.audio.decode import AUDIO_SUFFIXES, check_music, decode
from mert_core.audio.errors import UnusableAudio
from mert_core.config import Config
from mert_core.data.hashes import FileHashes, Stamp, hash_file
from mert_core.data.track import Rejected, SourceTrack, printable
from mert_core.errors import MertError
from mert_core.parallel import in_order


@dataclass
class Listing:
    """What lies in a folder.

    Attributes:
        root: the folder.
        files: relative paths of everything that is named like audio, sorted.
        ignored: number of other files by suffix; hidden files and folders are not even counted.
        rejected: folders that cannot be listed.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """List a tree in a stable order. Links are followed, but no folder is entered twice.

    Raises:
        MertError: ``root`` is missing or no folder.
    """
    if not root.is_dir():
        state = "is no folder" if root.exists() else "does not exist"
        kinds = ", ".join(sorted(AUDIO_SUFFIXES))
        raise MertError(f"corpus.folder: {root} {state}; expected a folder with {kinds} files")
    listing = Listing(root)
    entered: set[tuple[int, int]] = set()
    links = deque([""])
    while links:  # real folders before links, so that a file's own path is the one that is kept
        folders = [links.popleft()]
        while folders:
            relative = folders.pop()
            try:
                status = os.stat(root / relative)
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(root / relative) as entries:
                    children = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
            except OSError as error:
                if relative == "":
                    raise MertError(f"corpus.folder: cannot list {root}: {error.strerror}") from error
                why = UnusableAudio("unreadable", f"folder: {error.strerror}")
                listing.rejected.append(Rejected(relative, why))
                continue
            for entry in children:
                path = f"{relative}/{entry.name}" if relative else entry.name
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(path)
                elif (suffix := PurePosixPath(entry.name).suffix.lower()) in AUDIO_SUFFIXES:
                    listing.files.append(path)
                else:
                    listing.ignored[printable(suffix)] += 1
    listing.files.sort(key=os.fsencode)
    listing.rejected.sort(key=lambda rejected: os.fsencode(rejected.path))
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: `decode` will say so, if it is named like audio
        return False


def track_id(relative: str) -> str:
    """Return the id of the track that a file gives, from its path inside the folder."""
    return hashlib.sha256(os.fsencode(relative)).hexdigest()[:16]


def read_folder(
    listing: Listing, files: Sequence[str], hashes: FileHashes, config: Config
) -> Iterator[SourceTrack | Rejected]:
    """Decode files of a folder, in their order, on a few threads; what the listing rejected comes first.

    At most one decoded file more than there are threads waits in memory. The tracks have no split yet: it needs all
    artists. ``hashes`` receives the SHA-256 of each usable file.
    """
    yield from listing.rejected

    def read(path: str) -> tuple[str, SourceTrack | Rejected, Stamp | None]:
        return path, *_read_file(listing.root, path, config)

    with ThreadPoolExecutor(config.threads, thread_name_prefix="music") as pool:
        for path, item, stamp in in_order(pool, read, files, ahead=config.threads):
            if isinstance(item, SourceTrack) and item.source_sha256 and stamp:
                hashes.remember(path, stamp, bytes.fromhex(item.source_sha256))
            yield item


def _read_file(root: Path, relative: str, config: Config) -> tuple[SourceTrack | Rejected, Stamp | None]:
    try:
        stamp, sha256 = hash_file(root / relative)
        decoded = decode(root / relative)
        check_music(decoded, config.corpus.min_seconds)
        if Stamp.of(root / relative) != stamp:
            raise UnusableAudio("unreadable", "the file changed while it was read")
    except OSError as error:
        why = UnusableAudio("unreadable", error.strerror or type(error).__name__)
        return Rejected(relative, why), None
    except UnusableAudio as why:
        return Rejected(relative, why), None
    path = PurePosixPath(printable(relative))
    track = SourceTrack(
        track_id=track_id(relative),
        waveform=decoded.waveform,
        source_rate=decoded.source_rate,
        source=str(path),
        source_sha256=sha256.hex(),
        # the same recording as .flac and as .mp3 is one piece; so is a name in either Unicode form
        piece=unicodedata.normalize("NFC", str(path.with_suffix(""))),
        artist=unicodedata.normalize("NFC", path.parts[0] if len(path.parts) > 1 else path.stem),
        split=None,
        licence=config.corpus.licence,
    )
    return track, stamp
