"""EnCodec's published weights from the address that the encodec package has; only when asked for by name."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_file, writing
from mert_core.teachers.encodec_published import FILE_NAME

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30


def published_address() -> str:
    """Return where the encodec package would download the weights from."""
    from encodec.model import ROOT_URL

    return f"{ROOT_URL}{FILE_NAME}"


def download(to: Path, address: str | None = None) -> Path:
    """Fetch a file whose name ends in the first hexadecimal digits of its SHA-256, torch.hub's convention.

    A file that is there and right is kept. What arrives is checked before it gets its name, so that nothing half or
    wrong is ever left behind.

    Args:
        to: the folder to put it in.
        address: of the file; the published weights' own if None.

    Returns:
        The path of the file.

    Raises:
        MertError: nothing can be fetched from there, it is not what its name says, or it cannot be written.
    """
    address = address or published_address()
    name = address.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,64})\.", name)
    if digits is None:
        raise MertError(f"{address} does not say what it should hash to; expected a name like {FILE_NAME}")
    path = to / name
    if path.is_file() and sha256_file(path).startswith(digits[1]):
        return path
    found, size = hashlib.sha256(), 0
    with writing(path), atomic_path(path) as temporary:
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as source:
                total = int(source.headers.get("Content-Length") or 0) or None
                bar = tqdm(desc=name, total=total, unit="B", unit_scale=True)
                with temporary.open("wb") as stream, bar:
                    while chunk := source.read(_CHUNK_BYTES):
                        found.update(chunk)
                        stream.write(chunk)
                        bar.update(len(chunk))
                        size += len(chunk)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise MertError(
                f"cannot fetch {address}: {reason}. Fetch the file on a machine that can, and give its path as "
                "teachers.encodec.checkpoint"
            ) from error
        if not found.hexdigest().startswith(digits[1]):
            raise MertError(
                f"what {address} sent ({size} bytes) has the SHA-256 {found.hexdigest()[:16]}…, but its name says "
                f"{digits[1]}…: it is cut off or another file, and was not kept. Try again"
            )
    return path
