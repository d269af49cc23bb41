"""Random crops as training scripts take them: WebDataset over FLAC or raw samples, or seeking in FLAC files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SCALE = np.float32(1 / 32768)


def write_shards(folder: Path, songs: list[np.ndarray], rate: int) -> None:
    """Write songs, int16 each, as one tar of FLAC files, one of raw samples, and one FLAC file each."""
    import soundfile
    import webdataset

    (folder / "flac").mkdir()
    with webdataset.TarWriter(str(folder / "flac.tar")) as flac, webdataset.TarWriter(str(folder / "raw.tar")) as raw:
        for number, song in enumerate(songs):
            key, encoded = f"{number:05d}", io.BytesIO()
            soundfile.write(encoded, song, rate, format="FLAC", subtype="PCM_16")
            flac.write({"__key__": key, "flac": encoded.getvalue()})
            raw.write({"__key__": key, "bin": song.tobytes()})
            (folder / "flac" / f"{key}.flac").write_bytes(encoded.getvalue())


def webdataset_flac(folder: Path, samples: int, clips: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (clips, samples) without end: each song decoded whole, one crop of it."""
    import soundfile

    def decode(item: dict[str, Any]) -> np.ndarray:
        return soundfile.read(io.BytesIO(item["flac"]), dtype="float32")[0]

    return _webdataset(folder / "flac.tar", decode, samples, clips, seed)


def webdataset_raw(folder: Path, samples: int, clips: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (clips, samples) without end: each song's bytes read whole, one crop of them converted."""

    def decode(item: dict[str, Any]) -> np.ndarray:
        return np.frombuffer(item["bin"], dtype="<i2")

    return _webdataset(folder / "raw.tar", decode, samples, clips, seed)


def _webdataset(tar: Path, decode: Any, samples: int, clips: int, seed: int) -> Iterator[Tensor]:
    import webdataset

    generator = np.random.default_rng(seed)

    def crop(item: dict[str, Any]) -> Tensor:
        song = decode(item)
        start = generator.integers(len(song) - samples + 1)
        piece = song[start : start + samples]
        return torch.from_numpy(piece if piece.dtype == np.float32 else piece.astype(np.float32) * _SCALE)

    dataset = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    return iter(dataset.repeat().shuffle(64).map(crop).batched(clips, collation_fn=torch.stack))


def flac_seek(folder: Path, samples: int, clips: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (clips, samples) without end: a random place of a random FLAC file."""
    import soundfile

    generator = np.random.default_rng(seed)
    paths = sorted((folder / "flac").iterdir())
    while True:
        crops = []
        for number in generator.integers(len(paths), size=clips):
            with soundfile.SoundFile(paths[number]) as song:
                song.seek(generator.integers(song.frames - samples + 1))
                crops.append(torch.from_numpy(song.read(samples, dtype="float32")))
        yield torch.stack(crops)
