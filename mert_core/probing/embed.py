"""From sounds to embeddings: read, cut, put into batches of equal length, and embed."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.datasets.base import Sound
from mert_core.errors import MertError
from mert_core.parallel import in_order, single_threads
from mert_core.probing.embedding_store import EmbeddedSound, Windows, windows_of
from mert_core.probing.encoders.base import Encoder
from mert_core.probing.tasks import Chunking, Pooling

CPU_BATCH_SECONDS = 16.0  # on two cores the tiny student took a fifth less time than with 64
GPU_BATCH_SECONDS = 120.0
_WAITING_SECONDS = 480.0  # windows that wait for others of their length
_HELD_BYTES = 128e6  # embedded windows of sounds that are not complete
_LARGEST = 65504.0  # in float16

Vectors = NDArray[np.float16]


@dataclass(frozen=True)
class LoadedSound:
    """A sound as it was read.

    Attributes:
        waveform: mean of the channels (samples,).
        audio: SHA-256 of the samples.
    """

    waveform: NDArray[np.float32]
    audio: str


def load_sound(sound: Sound) -> LoadedSound:
    """Read a sound.

    Raises:
        UnusableAudio: it cannot be decoded, or holds NaN or infinity.
    """
    waveform = np.ascontiguousarray(sound.waveform(), dtype=np.float32)
    if not np.isfinite(waveform).all():
        raise UnusableAudio("not finite", "NaN or infinity among the samples")
    return LoadedSound(waveform, hashlib.sha256(waveform.data).hexdigest())


@dataclass
class PartialSound:
    """A sound whose windows are being embedded.

    Attributes:
        identity: SHA-256 that tells sounds apart.
        samples: length of the whole sound.
        audio: SHA-256 of its samples.
        windows: how it is cut.
        vectors: of each embedded window (rows, states, width), by its number.
    """

    identity: str
    samples: int
    audio: str
    windows: Windows
    vectors: dict[int, Vectors] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether no window is missing."""
        return len(self.vectors) == len(self.windows)

    @property
    def nbytes(self) -> int:
        """Size of the vectors."""
        return sum(vectors.nbytes for vectors in self.vectors.values())

    @property
    def record(self) -> EmbeddedSound:
        """The sound as the store lists it."""
        rows = tuple(len(rows) for rows in self.rows)
        return EmbeddedSound(self.identity, self.samples, self.audio, self.windows, rows)

    @property
    def rows(self) -> list[Vectors]:
        """The rows of each window in the order of time, (rows, states, width)."""
        return [self.vectors[window] for window in range(len(self.windows))]


def embed_sounds(
    encoder: Encoder, sounds: Sequence[tuple[str, Sound]], chunking: Chunking, pooling: Pooling, name: str = ""
) -> Iterator[PartialSound | tuple[str, str]]:
    """Embed sounds one by one; memory holds some minutes of sound, whatever their number.

    A batch holds windows of one length, so nothing is padded and the batch size changes no embedding (beyond rounding).

    Args:
        encoder: frozen.
        sounds: identity and sound; no identity twice.
        chunking: how sounds are cut.
        pooling: mean over time, or frames.
        name: for the progress bar.

    Yields:
        A complete sound; or the identity and the reason of one that cannot be used. In an order that follows from the
        sounds alone.

    Raises:
        MertError: an embedding is not finite, beyond float16, or of the wrong shape.
    """

    def read(sound: Sound) -> LoadedSound | UnusableAudio:
        try:
            return load_sound(sound)
        except UnusableAudio as error:
            return error

    threads, on_cpu = torch.get_num_threads(), encoder.device == "cpu"
    with (
        tqdm(total=len(sounds), desc=f"embed {name}".strip(), unit="sound", leave=False) as bar,
        single_threads(encoder.device) as pool,
        nullcontext(pool) if on_cpu else ThreadPoolExecutor(threads) as readers,
    ):
        batches = _Batches(
            lambda batch: embed_batch(encoder, batch, pooling), pool, 2 * threads if on_cpu else 4, on_cpu
        )
        read_ahead = in_order(readers, read, (sound for _, sound in sounds), 2 * threads)
        for (identity, _), loaded in zip(sounds, read_ahead, strict=True):
            reason = loaded.reason if isinstance(loaded, UnusableAudio) else "too short"
            if isinstance(loaded, UnusableAudio) or (windows := windows_of(len(loaded.waveform), chunking)) is None:
                bar.update()
                yield identity, reason
                continue
            sound = PartialSound(identity, len(loaded.waveform), loaded.audio, windows)
            for complete in batches.add(sound, loaded.waveform):
                bar.update()
                yield complete
        for complete in batches.finish():
            bar.update()
            yield complete


class _Batches:
    """Collects windows of one length, has full batches embedded, and gives the rows back to their sounds."""

    def __init__(
        self, work: Callable[[NDArray[np.float32]], Vectors], pool: ThreadPoolExecutor, ahead: int, on_cpu: bool
    ) -> None:
        self._work, self._pool, self._ahead = work, pool, ahead
        self._batch_samples = (CPU_BATCH_SECONDS if on_cpu else GPU_BATCH_SECONDS) * SAMPLE_RATE
        self._waiting: defaultdict[int, list[tuple[PartialSound, int, NDArray[np.float32]]]] = defaultdict(list)
        self._begun: deque[tuple[list[tuple[PartialSound, int]], Future[Vectors]]] = deque()
        self._waiting_samples = 0
        self._held_bytes = 0

    def add(self, sound: PartialSound, waveform: NDArray[np.float32]) -> Iterator[PartialSound]:
        """Take a sound's windows; yield sounds that are complete meanwhile."""
        for window, (start, stop) in enumerate(sound.windows.bounds().tolist()):
            length = stop - start
            self._waiting[length].append((sound, window, waveform[start:stop]))
            self._waiting_samples += length
            if (len(self._waiting[length]) + 1) * length > self._batch_samples:
                self._begin(length)
            yield from self._collect(self._ahead)
            if self._waiting_samples > _WAITING_SECONDS * SAMPLE_RATE or self._held_bytes > _HELD_BYTES:
                yield from self.finish()

    def finish(self) -> Iterator[PartialSound]:
        """Embed all that waits; yield the sounds."""
        for length in sorted(self._waiting):
            self._begin(length)
            yield from self._collect(self._ahead)
        yield from self._collect(0)

    def _begin(self, length: int) -> None:
        batch = self._waiting.pop(length)
        self._waiting_samples -= length * len(batch)
        waveforms = np.stack([waveform for _, _, waveform in batch])
        self._begun.append(([(sound, window) for sound, window, _ in batch], self._pool.submit(self._work, waveforms)))

    def _collect(self, ahead: int) -> Iterator[PartialSound]:
        while len(self._begun) > ahead:
            windows, future = self._begun.popleft()
            for (sound, window), vectors in zip(windows, future.result(), strict=True):
                sound.vectors[window] = vectors
                self._held_bytes += vectors.nbytes
                if sound.complete:
                    self._held_bytes -= sound.nbytes
                    yield sound


def embed_batch(encoder: Encoder, waveforms: NDArray[np.float32], pooling: Pooling) -> Vectors:
    """Return an encoder's embeddings in half precision, (batch, rows, states, width); one row if pooled.

    Args:
        encoder: frozen.
        waveforms: (batch, samples), 24 kHz.
        pooling: mean over time, or frames.

    Raises:
        MertError: an embedding is not finite, beyond float16, or of the wrong shape.
    """
    waveform = torch.from_numpy(waveforms).to(encoder.device)
    embedded = encoder.pooled(waveform)[:, :, None] if pooling == "mean" else encoder.frames(waveform)
    if embedded.ndim != 4 or embedded.shape[:2] != (encoder.states, len(waveforms)) or not embedded.shape[2]:
        raise MertError(
            f"the encoder embeds {tuple(waveform.shape)} samples in the shape {tuple(embedded.shape)}; expected "
            f"({encoder.states} states, {len(waveforms)}, frames, width)"
        )
    half = embedded.half()
    if not half.isfinite().all():
        raise MertError(_reason(embedded))
    return half.permute(1, 2, 0, 3).contiguous().cpu().numpy()


def _reason(embedded: Tensor) -> str:
    state = int((~embedded.half().isfinite()).flatten(1).any(dim=1).nonzero()[0])
    if not embedded.isfinite().all():
        return (
            f"embeddings are not finite (hidden state {state}): the model has diverged. Look at its training curve and "
            "train it again."
        )
    return (
        f"embeddings reach {float(embedded.abs().max()):.4g} (hidden state {state}), beyond half precision's "
        f"{_LARGEST:g}: the model has diverged, or its states must be scaled down. Look at its training curve, or wrap "
        "it in a callable that scales them."
    )
