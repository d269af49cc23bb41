"""EnCodec's published 24 kHz weights, unchanged."""

from __future__ import annotations

import pickle
import re
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mert_core.config import Section
from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_file, writing
from mert_core.teachers.base import Sources
from mert_core.teachers.codec.encode import CodecTeacher
from mert_core.teachers.codec.model import Architecture, RvqVae

PUBLISHED = Architecture(codebooks=32, entries=1024, filters=32, dimension=128)
CODEBOOKS_AT_6_KBPS = 8
_TIMEOUT_SECONDS = 30
FILE_NAME = "encodec_24khz-d7cc33bc.th"


class EncodecSettings(Section):
    """Where the published weights lie: a local copy of ``encodec_24khz-d7cc33bc.th``."""

    checkpoint: str | None = None


class EncodecTeacher(CodecTeacher):
    """EnCodec at 24 kHz and 6 kbps (arXiv 2210.13438), MERT's acoustic teacher: 8 codebooks of 1,024 entries."""

    name = "encodec"
    title = "EnCodec 24 kHz, 6 kbps, published weights"
    speed = 9.0
    needs = "weights"
    Settings = EncodecSettings

    def __init__(self, settings: EncodecSettings) -> None:
        super().__init__(settings, PUBLISHED, CODEBOOKS_AT_6_KBPS)
        self.files = () if settings.checkpoint is None else (settings.checkpoint,)

    def kept_settings(self) -> dict[str, Any]:
        """Return none: a path of this machine decides nothing, the file's checksum is a fact of the fit."""
        return {}

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Read the weights; their checksum is a fact of the record."""
        if self.settings.checkpoint is None:
            raise MertError(
                f"teachers.encodec.checkpoint is null; give the path of {FILE_NAME}, or let `mert teachers fit encodec "
                "--download` fetch it, or teach with rvqvae, which is trained here"
            )
        path = sources.root / Path(self.settings.checkpoint).expanduser()
        self.adopt(load_published(path))
        return {"checkpoint_sha256": sha256_file(path)}


def load_published(path: Path) -> RvqVae:
    """Read a local copy of ``encodec_24khz-*.th`` (the state dict that the ``encodec`` package downloads).

    Label with its first `CODEBOOKS_AT_6_KBPS` codebooks: 8 × 10 bits × 75 Hz = 6 kbps, as MERT did.

    Raises:
        MertError: unreadable file, or other keys or shapes than the published model's.
    """
    with torch.random.fork_rng(devices=[]):
        model = RvqVae(PUBLISHED)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MertError(f"teachers.encodec.checkpoint: cannot read {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise MertError(
            f"teachers.encodec.checkpoint: {path} is not a torch state dict ({reason}); expected {FILE_NAME}"
        ) from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:  # it names every key and shape that does not fit
        raise MertError(
            f"teachers.encodec.checkpoint: {path} is not EnCodec's 24 kHz model: {error}\nExpected {FILE_NAME}."
        ) from error
    return model.eval()


def published_address() -> str:
    """Return where the encodec package would download the weights from."""
    from encodec.model import ROOT_URL

    return f"{ROOT_URL}{FILE_NAME}"


def download(to: Path, address: str | None = None) -> Path:
    """Fetch a file whose name ends in the first hexadecimal digits of its SHA-256, torch.hub's convention.

    A file that is there and right is kept. What arrives is checked before it gets its name, so that nothing half or
    wrong is ever left behind.

    Args:
        to: folder that gets the file; made where it is missing.
        address: URL of the file; the published weights' own if None.

    Raises:
        MertError: nothing can be fetched from there, it is not what its name says, or it cannot be written.
    """
    address = address or published_address()
    path = to / address.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if digits is None:
        raise MertError(f"{address} does not say what it should hash to; expected a name like {FILE_NAME}")
    if path.is_file() and sha256_file(path).startswith(digits[1]):
        return path
    with writing(path), atomic_path(path) as temporary:
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as source, temporary.open("wb") as stream:
                total = int(source.headers.get("Content-Length") or 0) or None
                with tqdm.wrapattr(source, "read", total=total, desc=path.name) as chunks:
                    shutil.copyfileobj(chunks, stream)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise MertError(
                f"cannot fetch {address}: {reason}. Fetch the file on a machine that can, and give its path as "
                "teachers.encodec.checkpoint"
            ) from error
        if not (sha256 := sha256_file(temporary)).startswith(digits[1]):
            raise MertError(
                f"what {address} sent ({temporary.stat().st_size} bytes) has the SHA-256 {sha256[:16]}…, but its name "
                f"says {digits[1]}…: it is cut off or another file, and was not kept. Try again"
            )
    return path
