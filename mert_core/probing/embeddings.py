"""Frozen embeddings of sounds: each computed once for an encoder, windows and pooling, and kept in half precision.

A sound is read, cut into windows and embedded in batches of windows of one length (`_embed`); the rows go to the store
(`mert_core.probing.embedding_store`) and are read back from there (`Embeddings`, `FeatureView`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

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
from mert_core.parallel import in_order, single_threads
from mert_core.probing.embedding_store import EmbeddedSound, EmbeddingStore, ShardRows, windows_of
from mert_core.probing.encoders.base import Encoder, fingerprint
from mert_core.probing.tasks import Chunking, Pooling

PROTOCOL = "windows side by side, every hidden state, mean over time or frames, half precision"
SHARD_SOUNDS = 256
SHARD_BYTES = 256e6
CPU_BATCH_SECONDS = 16.0  # on two cores the tiny student took a fifth less time than with 64
GPU_BATCH_SECONDS = 120.0
_WAITING_SECONDS = 480.0  # windows that wait for others of their length
_HELD_BYTES = 128e6  # embedded windows of sounds that are not complete

Vectors = NDArray[np.float16]
Read = TypeVar("Read")


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
        """Return rows in any order, of all states or some: float32 (states, len(rows), width), on the CPU.

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


class FeatureView:
    """Some rows of embeddings in a given order, and all hidden states or those ``chosen``; the `Features` of probes."""

    def __init__(self, embeddings: Embeddings, rows: NDArray[np.int64], chosen: Sequence[int] | None = None) -> None:
        self._embeddings, self._rows, self._chosen = embeddings, rows, chosen
        self.states = embeddings.states if chosen is None else len(chosen)
        self.width = embeddings.width

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self._embeddings.take(self._rows[rows], self._chosen)


def embeddings(
    encoder: Encoder, sounds: Sequence[Sound], chunking: Chunking, pooling: Pooling, caches: Path | None, name: str = ""
) -> Embeddings:
    """Return the embeddings of sounds; only what the cache does not have is computed.

    Sounds are told apart by their identity and by the windows that their length and ``chunking`` give: two tasks share
    what they both ask for, and one of the sounds that were there already is read again to see that it is the same.
    Shards of 256 sounds are written below ``caches`` (None: nothing is kept) as they are done; a run that is
    interrupted goes on from there.

    Returns:
        The embeddings, in the order of ``sounds``, of which one may appear more than once. Sounds that cannot be
        decoded or are shorter than 50 ms have no rows and are listed in `Embeddings.missing`.

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
    identities, missing = _identities(sounds)
    by_identity = {identity: sound for identity, sound in zip(identities, sounds, strict=True) if identity}
    new = {identity: sound for identity, sound in by_identity.items() if store.find(identity, chunking) is None}
    if cached := by_identity.keys() - new.keys():
        first = min(cached)
        waveform, audio = _read(by_identity[first])
        store.check_sound(first, len(waveform), audio)
    reasons: dict[str, str] = {}
    done: list[tuple[EmbeddedSound, Vectors]] = []
    for sound, rows in _embed(encoder, new, chunking, pooling, name, reasons):
        store.check_sound(sound.identity, sound.samples, sound.audio)
        done.append((sound, rows))
        if len(done) == SHARD_SOUNDS or sum(vectors.nbytes for _, vectors in done) >= SHARD_BYTES:
            store.write(done)
            done = []
    if done:
        store.write(done)

    found = [store.find(identity, chunking) for identity in identities]
    for number, (identity, stored) in enumerate(zip(identities, found, strict=True)):
        if stored is None:
            missing.setdefault(number, reasons.get(identity, "too short"))
    if len(missing) == len(sounds):
        counts = ", ".join(f"{count} × {reason}" for reason, count in Counter(missing.values()).most_common())
        raise MertError(f"none of the {len(sounds)} sounds{f' of {name}' if name else ''} can be used: {counts}")
    return Embeddings(found, missing, pooling, frame_rate)


def _identities(sounds: Sequence[Sound]) -> tuple[list[str], dict[int, str]]:
    """Return each sound's identity, empty where it cannot be read, and the reasons."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = pool.map(partial(_or_unusable, attrgetter("identity")), sounds)
        identities = list(tqdm(found, "identify", len(sounds), leave=False, unit="sound", delay=1))
    unusable = {number: str(one.reason) for number, one in enumerate(identities) if isinstance(one, UnusableAudio)}
    return [one if isinstance(one, str) else "" for one in identities], unusable


def _or_unusable(read: Callable[[Sound], Read], sound: Sound) -> Read | UnusableAudio:
    try:
        return read(sound)
    except UnusableAudio as error:
        return error


def _read(sound: Sound) -> tuple[NDArray[np.float32], str]:
    """Return a sound's waveform (samples,) and the SHA-256 of the samples."""
    waveform = np.ascontiguousarray(sound.waveform(), dtype=np.float32)
    if not np.isfinite(waveform).all():
        raise UnusableAudio("not finite", "NaN or infinity among the samples")
    return waveform, hashlib.sha256(waveform.data).hexdigest()


_Batch = list[tuple[EmbeddedSound, int, NDArray[np.float32]]]  # windows of one length: sound, number, samples


def _embed(
    encoder: Encoder, sounds: dict[str, Sound], chunking: Chunking, pooling: Pooling, name: str, reasons: dict[str, str]
) -> Iterator[tuple[EmbeddedSound, Vectors]]:
    """Embed sounds, by identity; memory holds some minutes of sound, whatever their number.

    Yields each sound with its rows (rows, states, width), in an order that follows from the sounds alone. ``reasons``
    gets the identities of those that cannot be used, and why.
    """
    threads, on_cpu = torch.get_num_threads(), encoder.device == "cpu"
    batch_samples = (CPU_BATCH_SECONDS if on_cpu else GPU_BATCH_SECONDS) * SAMPLE_RATE
    held: defaultdict[str, dict[int, Vectors]] = defaultdict(dict)  # embedded windows by sound and number
    held_bytes = 0

    def batches() -> Iterator[_Batch]:
        """Read and cut sounds; a batch is never padded, and its size changes no embedding (beyond rounding)."""
        waiting: defaultdict[int, _Batch] = defaultdict(list)
        waiting_samples = 0
        read_ahead = in_order(readers, partial(_or_unusable, _read), sounds.values(), 2 * threads)
        for identity, loaded in zip(sounds, read_ahead, strict=True):
            windows = None
            if isinstance(loaded, UnusableAudio):
                reasons[identity] = loaded.reason
            else:
                waveform, audio = loaded
                windows = windows_of(len(waveform), chunking)
            if windows is None:
                reasons.setdefault(identity, "too short")
                bar.update()
                continue
            sound = EmbeddedSound(identity, len(waveform), audio, windows)
            for number, (start, stop) in enumerate(windows.bounds().tolist()):
                length = stop - start
                waiting[length].append((sound, number, waveform[start:stop]))
                waiting_samples += length
                if (len(waiting[length]) + 1) * length > batch_samples:
                    waiting_samples -= length * len(waiting[length])
                    yield waiting.pop(length)
                if waiting_samples > _WAITING_SECONDS * SAMPLE_RATE or held_bytes > _HELD_BYTES:
                    yield from [waiting.pop(length) for length in sorted(waiting)]
                    waiting_samples = 0
        yield from [waiting.pop(length) for length in sorted(waiting)]

    def embed(batch: _Batch) -> tuple[_Batch, Vectors]:
        return batch, _embed_batch(encoder, np.stack([samples for _, _, samples in batch]), pooling)

    with (
        tqdm(total=len(sounds), desc=f"embed {name}".strip(), unit="sound", leave=False) as bar,
        single_threads(encoder.device) as pool,
        nullcontext(pool) if on_cpu else ThreadPoolExecutor(threads) as readers,
    ):
        for batch, embedded in in_order(pool, embed, batches(), 2 * threads if on_cpu else 4):
            for (sound, number, _), vectors in zip(batch, embedded, strict=True):
                held[sound.identity][number] = vectors
                held_bytes += vectors.nbytes
                if len(held[sound.identity]) == len(sound.windows):
                    parts = [part for _, part in sorted(held.pop(sound.identity).items())]
                    rows = np.concatenate(parts)
                    held_bytes -= rows.nbytes
                    bar.update()
                    yield replace(sound, window_rows=tuple(len(part) for part in parts)), rows


def _embed_batch(encoder: Encoder, waveforms: NDArray[np.float32], pooling: Pooling) -> Vectors:
    """Return embeddings of (batch, samples) in half precision, (batch, rows, states, width); one row if pooled."""
    waveform = torch.from_numpy(waveforms).to(encoder.device)
    embedded = encoder.pooled(waveform)[:, :, None] if pooling == "mean" else encoder.frames(waveform)
    if embedded.ndim != 4 or embedded.shape[:2] != (encoder.states, len(waveforms)) or not embedded.shape[2]:
        raise MertError(
            f"the encoder embeds {tuple(waveform.shape)} samples in the shape {tuple(embedded.shape)}; expected "
            f"({encoder.states} states, {len(waveforms)}, frames, width)"
        )
    half = embedded.half()
    finite = half.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        state = int((~finite).nonzero()[0])
        if not embedded.isfinite().all():
            raise MertError(
                f"embeddings are not finite (hidden state {state}): the model has diverged. Look at its training curve "
                "and train it again."
            )
        raise MertError(
            f"embeddings reach {float(embedded.abs().max()):.4g} (hidden state {state}), beyond half precision's "
            f"{torch.finfo(torch.half).max:g}: the model has diverged, or its states must be scaled down. Look at its "
            "training curve, or wrap it in a callable that scales them."
        )
    return half.permute(1, 2, 0, 3).contiguous().cpu().numpy()
