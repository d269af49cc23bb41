"""Frozen embeddings of a set of items, computed once and cached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.audio.pcm import to_float32
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_file, sha256_json, write_json
from mert_core.probe.encoders import Encoder, fingerprint
from mert_core.probe.items import Items
from mert_core.workers import single_threads

PROTOCOL = "whole item, mean over time of every hidden state, float32"
BATCH_SECONDS = 16.0  # on two cores the tiny student took a fifth less time than with 64


def embed(
    encoder: Encoder, items: Items, positions: NDArray[np.int64] | None = None, name: str = ""
) -> NDArray[np.float32]:
    """Embed items, in evaluation mode, without gradient.

    A batch holds items of one length, so nothing is padded and the batch size changes no embedding (beyond rounding).

    Args:
        encoder: what embeds.
        items: of one kind.
        positions: which of them; all by default.
        name: for the progress bar.

    Returns:
        float32 (layers, items, width), in the order of ``positions``.
    """
    positions = np.arange(len(items)) if positions is None else positions
    batches = list(_batches(items.samples[positions]))

    def states_of(batch: NDArray[np.int64]) -> NDArray[np.float32]:
        waveform = torch.from_numpy(to_float32(items.pcm(positions[batch])))
        return encoder.embed(waveform.to(encoder.device)).cpu().numpy()

    found: NDArray[np.float32] | None = None
    with (
        tqdm(total=len(positions), desc=f"embed {name or items.kind}", unit="item", leave=False) as bar,
        single_threads(encoder.device) as pool,
    ):
        for batch, states in zip(batches, pool.map(states_of, batches), strict=True):
            if found is None:
                found = np.empty((states.shape[0], len(positions), states.shape[2]), dtype=np.float32)
            found[:, batch] = states
            bar.update(len(batch))
    if found is None:
        raise MertError(f"there is no item of kind {items.kind!r} to embed. Run `mert probe-set`.")
    if not np.isfinite(found).all():
        bad = np.flatnonzero(~np.isfinite(found).all(axis=(0, 2)))
        raise MertError(
            f"{len(bad)} embeddings of {items.kind!r} items are not finite, the first of "
            f"{items.track_ids[positions[bad[0]]]}: the model has diverged. "
            "Look at its training curve and train it again."
        )
    return found


def _batches(samples: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for length in np.unique(samples):
        same = np.flatnonzero(samples == length)
        size = max(1, int(BATCH_SECONDS * SAMPLE_RATE / length))
        yield from (same[start : start + size] for start in range(0, len(same), size))


def cached_embeddings(encoder: Encoder, items: Items, caches: Path) -> NDArray[np.float32]:
    """Return the embeddings of all items, from the cache if it has them; memory-mapped (layers, items, width).

    Raises:
        MertError: what the cache holds is of another model or other audio, or is damaged.
    """
    card = {
        "protocol": PROTOCOL,
        "encoder": fingerprint(encoder),
        "computed_on": encoder.device,  # which moves the last bits
        "probe_set": items.probe_set,
        "kind": items.kind,
        "audio": sha256_json(items.content_hashes),
    }
    folder = caches / "embeddings" / sha256_json(card)[:20]
    if not folder.exists():
        found = embed(encoder, items)
        with atomic_folder(folder) as temporary:
            np.save(temporary / "embeddings.npy", found)
            write_json(temporary / "card.json", {**card, "sha256": sha256_file(temporary / "embeddings.npy")})
    return open_embeddings(folder, card)


def open_embeddings(folder: Path, card: dict[str, Any]) -> NDArray[np.float32]:
    """Open cached embeddings that must be the ones that ``card`` describes.

    Raises:
        MertError: they are of something else, or damaged; the message names what differs.
    """
    path = folder / "embeddings.npy"
    try:
        stored = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        differs = [
            f"{name} is {stored.get(name)!r}, expected {value!r}"
            for name, value in card.items()
            if stored.get(name) != value
        ]
        if not differs and sha256_file(path) != stored.get("sha256"):
            differs = ["the bytes are not those that were written"]
    except (OSError, json.JSONDecodeError) as error:
        differs = [str(error)]
    if differs:
        raise MertError(
            f"the cached embeddings {folder} are refused: {'; '.join(differs)}. Remove that folder and run again."
        )
    return np.load(path, mmap_mode="r")
