"""Frozen embeddings of sounds: each computed once for an encoder, windows and pooling, and kept in half precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

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
from mert_core.probing.embed import Embedded, embed_sounds, hear
from mert_core.probing.embedding_store import EmbeddingStore, ShardRows, read_card, windows_of
from mert_core.probing.encoders.base import Encoder, fingerprint
from mert_core.probing.tasks import Chunking, Pooling

PROTOCOL = "windows side by side, every hidden state, mean over time or frames, half precision"
PART_SOUNDS = 256
PART_BYTES = 256e6


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
        self, places: Sequence[ShardRows | None], missing: dict[int, str], pooling: Pooling, frame_rate: float | None
    ) -> None:
        self.pooling, self.frame_rate, self.missing = pooling, frame_rate, missing
        self._places = tuple(places)
        there = [place for place in places if place is not None]
        self._parts = list({id(place.part): place.part for place in there}.values())
        numbers = {id(part): number for number, part in enumerate(self._parts)}
        shapes = [part.array().shape for part in self._parts]  # and so each is checked
        self.states, self.width = shapes[0][1:]
        rows = [0 if place is None else place.entry.rows for place in places]
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._part_of = np.array([-1 if place is None else numbers[id(place.part)] for place in places])
        self._first = np.array([0 if place is None else place.first for place in places], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of sounds, sound by sound."""
        positions = np.asarray(positions, dtype=np.int64)
        counts = self.offsets[positions + 1] - self.offsets[positions]
        begins = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(self.offsets[positions] - begins, counts)

    def owners(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return of which of ``positions`` (0 …) each of their `rows` is."""
        positions = np.asarray(positions, dtype=np.int64)
        return np.repeat(np.arange(len(positions)), self.offsets[positions + 1] - self.offsets[positions])

    def times(self, position: int) -> NDArray[np.float64]:
        """Return where in a sound each of its rows begins, in seconds.

        A window has no frame where its end is not wholly seen: 449 frames in 6 s, the next window's first at 6 s.
        """
        place = self._places[position]
        if place is None:
            return np.zeros(0)
        begins = place.entry.windows.bounds()[:, 0] / SAMPLE_RATE
        rate = self.frame_rate or 1.0
        return np.concatenate(
            [begin + np.arange(rows) / rate for begin, rows in zip(begins, place.entry.window_rows, strict=True)]
        )

    def samples(self, position: int) -> int:
        """Return the length of a whole sound, also where windows leave out its end; 0 if it is missing."""
        place = self._places[position]
        return 0 if place is None else place.entry.samples

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
            raise IndexError(f"rows {rows.min()} to {rows.max()} were asked for; there are {self.offsets[-1]}")
        owners = np.searchsorted(self.offsets, rows, side="right") - 1
        inside, part_of = rows - self.offsets[owners] + self._first[owners], self._part_of[owners]
        chosen = np.arange(self.states) if states is None else np.asarray(states, dtype=np.int64)
        gathered = np.empty((len(rows), len(chosen), self.width), dtype=np.float16)
        for number in np.unique(part_of):
            here, array = np.flatnonzero(part_of == number), self._parts[number].array()
            gathered[here] = array[inside[here]] if states is None else array[inside[here][:, None], chosen]
        return torch.empty(len(chosen), len(rows), self.width).copy_(torch.from_numpy(gathered).transpose(0, 1))


def embeddings(
    encoder: Encoder, sounds: Sequence[Sound], chunking: Chunking, pooling: Pooling, caches: Path | None, name: str = ""
) -> Embeddings:
    """Return the embeddings of sounds; only what the cache does not have is computed.

    Sounds are told apart by their identity and by the windows that their length and ``chunking`` give: two tasks share
    what they both ask for, and one of the sounds that were there already is read again to see that it is the same.
    Parts of 256 sounds are written as they are done; whoever is interrupted goes on from there.

    Args:
        encoder: what embeds.
        sounds: in any order; one may appear more than once.
        chunking: how they are cut.
        pooling: ``mean``: a vector per window; ``frames``: time is kept.
        caches: where caches lie; None: nothing is kept.
        name: for the progress bar.

    Returns:
        The embeddings, in the order of ``sounds``. Sounds that cannot be decoded or are shorter than 50 ms have no rows
        and are listed in `Embeddings.missing`.

    Raises:
        MertError: there are no sounds or none is usable, the encoder's answers are not finite or beyond half precision,
            or what the cache holds is of another model or other audio, or damaged.
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
    known = [identity for identity in by_identity if _place(store, identity, chunking) is not None]
    if known:
        first = min(known)
        heard = hear(by_identity[first])
        store.check_sound(first, len(heard.waveform), heard.audio)
    new = [(identity, sound) for identity, sound in by_identity.items() if _place(store, identity, chunking) is None]
    reasons = _compute(encoder, store, new, chunking, pooling, name)
    places: list[ShardRows | None] = []
    for number, identity in enumerate(identities):
        places.append(_place(store, identity, chunking) if identity else None)
        if places[-1] is None:
            unusable.setdefault(number, reasons.get(identity, "too short"))
    if all(place is None for place in places):
        counts = ", ".join(f"{count} × {reason}" for reason, count in Counter(unusable.values()).most_common())
        raise MertError(f"none of the {len(sounds)} sounds{f' of {name}' if name else ''} can be used: {counts}")
    return Embeddings(places, unusable, pooling, frame_rate)


def open_embeddings(
    folder: Path, encoder: str, sounds: Sequence[Sound], chunking: Chunking, pooling: Pooling
) -> Embeddings:
    """Open what one folder of the cache holds of sounds; nothing is computed.

    Args:
        folder: ``embeddings/KEY`` in the caches.
        encoder: `fingerprint` of the encoder that they must be of.
        sounds: all of which must be there.
        chunking: how they must have been cut.
        pooling: what must have been kept of time.

    Raises:
        MertError: they are of another encoder, time was not kept as asked, a sound is not there or is another, or a
            file is damaged; the message names what differs.
    """
    card = read_card(folder)
    store = EmbeddingStore(folder, {**card, "encoder": encoder, "pooling": pooling})
    places = []
    for sound in sounds:
        place = _place(store, sound.identity, chunking)
        if place is None:
            raise MertError(
                f"the cached embeddings {folder} have no sound {sound.identity[:16]} in windows of {chunking}: the "
                "audio is another, or was not embedded so. Embed it (mert probe)."
            )
        heard = hear(sound)
        store.check_sound(sound.identity, len(heard.waveform), heard.audio)
        places.append(place)
    return Embeddings(places, {}, pooling, card["frame_rate"])


def _identities(sounds: Sequence[Sound]) -> tuple[list[str], dict[int, str]]:
    """Return each sound's identity, empty where it cannot be read, and the reasons."""

    def identity_of(sound: Sound) -> str | UnusableAudio:
        try:
            return sound.identity
        except UnusableAudio as error:
            return error

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        asked = tqdm(pool.map(identity_of, sounds), "identify", len(sounds), leave=False, unit="sound", delay=1)
        found = list(asked)
    unusable = {number: str(one.reason) for number, one in enumerate(found) if isinstance(one, UnusableAudio)}
    return [one if isinstance(one, str) else "" for one in found], unusable


def _place(store: EmbeddingStore, identity: str, chunking: Chunking) -> ShardRows | None:
    known = store.sounds.get(identity)
    windows = None if known is None else windows_of(known.samples, chunking)
    return None if windows is None else store.places.get((identity, windows))


def _write(store: EmbeddingStore, done: list[Embedded]) -> None:
    store.write([one.entry for one in done], [rows for one in done for rows in one.rows])


def _compute(
    encoder: Encoder,
    store: EmbeddingStore,
    sounds: list[tuple[str, Sound]],
    chunking: Chunking,
    pooling: Pooling,
    name: str,
) -> dict[str, str]:
    """Embed sounds into the store part by part; return the reasons of those that cannot be used, by identity."""
    reasons: dict[str, str] = {}
    done: list[Embedded] = []
    for found in embed_sounds(encoder, sounds, chunking, pooling, name) if sounds else ():
        if isinstance(found, tuple):
            reasons[found[0]] = found[1]
            continue
        store.check_sound(found.identity, *found.heard)
        done.append(found)
        if len(done) == PART_SOUNDS or sum(one.nbytes for one in done) >= PART_BYTES:
            _write(store, done)
            done = []
    if done:
        _write(store, done)
    return reasons


class Taken(Protocol):
    """What is needed of `mert_core.probing.embeddings.Embeddings`."""

    states: int
    width: int

    def take(self, rows: NDArray[np.int64], states: Sequence[int] | None = None) -> Tensor:
        """Return float32 (states, len(rows), width)."""


class FeatureView:
    """A selection of rows and states; a `mert_core.probing.train.Features`.

    Args:
        embeddings: of any sounds.
        rows: which of their rows, in this order.
        chosen: which of their hidden states; all by default.
    """

    def __init__(self, embeddings: Taken, rows: NDArray[np.int64], chosen: Sequence[int] | None = None) -> None:
        self._embeddings, self._rows, self._chosen = embeddings, rows, chosen
        self.states = embeddings.states if chosen is None else len(chosen)
        self.width = embeddings.width

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self._embeddings.take(self._rows[rows], self._chosen)
