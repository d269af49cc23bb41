"""Frozen embeddings of sounds: each computed once for an encoder, windows and pooling, and kept in half precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.datasets.base import Sound
from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.probing.embed import PartialSound, embed_sounds, load_sound
from mert_core.probing.embedding_store import EmbeddingStore, ShardRows, windows_of
from mert_core.probing.encoders.base import Encoder, fingerprint
from mert_core.probing.tasks import Chunking, Pooling

PROTOCOL = "windows side by side, every hidden state, mean over time or frames, half precision"
SHARD_SOUNDS = 256
SHARD_BYTES = 256e6


class Embeddings:
    """Embeddings of a sequence of sounds; their rows lie memory-mapped on disk. Cheap to pickle.

    Attributes:
        states: hidden states.
        width: of a vector.
        frame_rate: frames per second; None if pooled.
        pooling: ``mean``: a row is a window; ``frames``: a row is a frame, windows one after the other in time.
        offsets: rows of sound i are offsets[i]:offsets[i + 1], (sounds + 1,).
        missing: sound number → why it has no rows: one of `mert_core.audio.errors.Reason`.
    """

    def __init__(
        self, stored: Sequence[ShardRows | None], missing: dict[int, str], pooling: Pooling, frame_rate: float | None
    ) -> None:
        self.pooling, self.frame_rate, self.missing = pooling, frame_rate, missing
        self._stored = tuple(stored)
        present = [rows for rows in stored if rows is not None]
        self._shards = list({id(rows.shard): rows.shard for rows in present}.values())
        numbers = {id(shard): number for number, shard in enumerate(self._shards)}
        shapes = [shard.array().shape for shard in self._shards]  # and so each is checked
        self.states, self.width = shapes[0][1:]
        counts = [0 if rows is None else rows.sound.rows for rows in stored]
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._shard_of = np.array([-1 if rows is None else numbers[id(rows.shard)] for rows in stored])
        self._first = np.array([0 if rows is None else rows.first for rows in stored], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._stored)

    def rows(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of sounds, sound by sound."""
        indices = np.asarray(indices, dtype=np.int64)
        counts = self.offsets[indices + 1] - self.offsets[indices]
        begins = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(self.offsets[indices] - begins, counts)

    def owners(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for each of the sounds' `rows` which of ``indices`` (0 …) it is of."""
        indices = np.asarray(indices, dtype=np.int64)
        return np.repeat(np.arange(len(indices)), self.offsets[indices + 1] - self.offsets[indices])

    def times(self, index: int) -> NDArray[np.float64]:
        """Return where in a sound each of its rows begins, in seconds.

        A window has no frame where its end is not wholly seen: 449 frames in 6 s, the next window's first at 6 s.
        """
        stored = self._stored[index]
        if stored is None:
            return np.zeros(0)
        begins = stored.sound.windows.bounds()[:, 0] / SAMPLE_RATE
        rate = self.frame_rate or 1.0
        return np.concatenate(
            [begin + np.arange(rows) / rate for begin, rows in zip(begins, stored.sound.window_rows, strict=True)]
        )

    def samples(self, index: int) -> int:
        """Return the length of a whole sound, also where windows leave out its end; 0 if it is missing."""
        stored = self._stored[index]
        return 0 if stored is None else stored.sound.samples

    def take(self, rows: NDArray[np.int64], states: Sequence[int] | None = None) -> Tensor:
        """Read rows.

        Args:
            rows: any, in any order.
            states: only these; all by default.

        Returns:
            float32 (states, len(rows), width), on the CPU.

        Raises:
            IndexError: there is no such row.
            MertError: a file of the cache is gone or damaged.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.offsets[-1]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are out of range; there are {self.offsets[-1]}")
        owners = np.searchsorted(self.offsets, rows, side="right") - 1
        inside, shard_of = rows - self.offsets[owners] + self._first[owners], self._shard_of[owners]
        chosen = np.arange(self.states) if states is None else np.asarray(states, dtype=np.int64)
        gathered = np.empty((len(rows), len(chosen), self.width), dtype=np.float16)
        for number in np.unique(shard_of):  # one pass per shard
            here, array = np.flatnonzero(shard_of == number), self._shards[number].array()
            gathered[here] = array[inside[here]] if states is None else array[inside[here][:, None], chosen]
        return torch.empty(len(chosen), len(rows), self.width).copy_(torch.from_numpy(gathered).transpose(0, 1))


def embeddings(
    encoder: Encoder, sounds: Sequence[Sound], chunking: Chunking, pooling: Pooling, caches: Path | None, name: str = ""
) -> Embeddings:
    """Return the embeddings of sounds; only what the cache does not have is computed.

    Sounds are told apart by their identity and by the windows that their length and ``chunking`` give: two tasks share
    what they both ask for, and one of the sounds that were there already is read again to see that it is the same.
    Shards of 256 sounds are written as they are done; a run that is interrupted goes on from there.

    Args:
        encoder: frozen.
        sounds: in any order; one may appear more than once.
        chunking: how sounds are cut.
        pooling: ``mean``: a vector per window; ``frames``: time is kept.
        caches: where caches lie; None: nothing is kept.
        name: for the progress bar.

    Returns:
        The embeddings, in the order of ``sounds``. Sounds that cannot be decoded or are shorter than 50 ms have no rows
        and are listed in `Embeddings.missing`.

    Raises:
        MertError: there are no sounds or none is usable, embeddings are not finite or beyond half precision, or what
            the cache holds is of another model or other audio, or damaged.
    """
    if not sounds:
        raise MertError(f"there is no sound to embed{f' for {name}' if name else ''}; expected at least one")
    frame_rate = encoder.frame_rate if pooling == "frames" else None
    card = {
        "protocol": PROTOCOL,
        "encoder": fingerprint(encoder),
        "computed_on": torch.device(encoder.device).type,  # which moves the last bits
        "pooling": pooling,
        "states": encoder.states,
        "frame_rate": frame_rate,
    }
    store = EmbeddingStore(None if caches is None else caches / "embeddings" / sha256_json(card)[:20], card)
    identities, unusable = _identities(sounds)
    by_identity = {identity: sound for identity, sound in zip(identities, sounds, strict=True) if identity}
    cached = [identity for identity in by_identity if _stored_rows(store, identity, chunking) is not None]
    if cached:
        first = min(cached)
        loaded = load_sound(by_identity[first])
        store.check_sound(first, len(loaded.waveform), loaded.audio)
    new = [
        (identity, sound) for identity, sound in by_identity.items() if _stored_rows(store, identity, chunking) is None
    ]
    reasons = _compute(encoder, store, new, chunking, pooling, name)
    stored: list[ShardRows | None] = []
    for number, identity in enumerate(identities):
        stored.append(_stored_rows(store, identity, chunking) if identity else None)
        if stored[-1] is None:
            unusable.setdefault(number, reasons.get(identity, "too short"))
    if all(rows is None for rows in stored):
        counts = ", ".join(f"{count} × {reason}" for reason, count in Counter(unusable.values()).most_common())
        raise MertError(f"none of the {len(sounds)} sounds{f' of {name}' if name else ''} can be used: {counts}")
    return Embeddings(stored, unusable, pooling, frame_rate)


def _identities(sounds: Sequence[Sound]) -> tuple[list[str], dict[int, str]]:
    """Return each sound's identity, empty where it cannot be read, and the reasons."""

    def identity_of(sound: Sound) -> str | UnusableAudio:
        try:
            return sound.identity
        except UnusableAudio as error:
            return error

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        bar = tqdm(pool.map(identity_of, sounds), "identify", len(sounds), leave=False, unit="sound", delay=1)
        identities = list(bar)
    unusable = {number: str(one.reason) for number, one in enumerate(identities) if isinstance(one, UnusableAudio)}
    return [one if isinstance(one, str) else "" for one in identities], unusable


def _stored_rows(store: EmbeddingStore, identity: str, chunking: Chunking) -> ShardRows | None:
    sound = store.sounds.get(identity)
    windows = None if sound is None else windows_of(sound.samples, chunking)
    return None if windows is None else store.rows.get((identity, windows))


def _write(store: EmbeddingStore, done: list[PartialSound]) -> None:
    store.write([one.record for one in done], [rows for one in done for rows in one.rows])


def _compute(
    encoder: Encoder,
    store: EmbeddingStore,
    sounds: list[tuple[str, Sound]],
    chunking: Chunking,
    pooling: Pooling,
    name: str,
) -> dict[str, str]:
    """Embed sounds into the store shard by shard; return the reasons of those that cannot be used, by identity."""
    reasons: dict[str, str] = {}
    done: list[PartialSound] = []
    for sound in embed_sounds(encoder, sounds, chunking, pooling, name) if sounds else ():
        if isinstance(sound, tuple):
            reasons[sound[0]] = sound[1]
            continue
        store.check_sound(sound.identity, sound.samples, sound.audio)
        done.append(sound)
        if len(done) == SHARD_SOUNDS or sum(one.nbytes for one in done) >= SHARD_BYTES:
            _write(store, done)
            done = []
    if done:
        _write(store, done)
    return reasons


class FeatureView:
    """A selection of rows and states; a `mert_core.probing.features.Features`.

    Args:
        embeddings: of some sounds.
        rows: indices of the selected rows, in this order.
        chosen: indices of the selected hidden states; all by default.
    """

    def __init__(self, embeddings: Embeddings, rows: NDArray[np.int64], chosen: Sequence[int] | None = None) -> None:
        self._embeddings, self._rows, self._chosen = embeddings, rows, chosen
        self.states = embeddings.states if chosen is None else len(chosen)
        self.width = embeddings.width

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self._embeddings.take(self._rows[rows], self._chosen)
