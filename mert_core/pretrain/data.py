"""Batches for pre-training. A crop, its mask and its noise are pure functions of (seed, epoch, index)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE, student_frames
from mert_core.errors import MertError
from mert_core.pretrain.masking import span_masks
from mert_core.pretrain.mixture import Snippet, draw_snippets

if TYPE_CHECKING:
    from mert_core.config import Pretrain

Rows = NDArray[np.int64]
_SPLITS = {"train": 0, "valid": 1, "test": 2}
_CROP, _MASK, _MIXTURE, _EPOCH, _CODEBOOK = range(5)  # independent random streams of one item


class Music(Protocol):
    """What crops are cut from; ``mert_core.corpus.Corpus`` is one. ``tracks`` has a column ``samples``."""

    @property
    def tracks(self) -> Any:
        """Return the manifest."""

    def rows(self, split: str) -> Any:
        """Return the row numbers of a split's tracks."""

    def crops(self, rows: Rows, offset_samples: Rows, length: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write waveforms, −1 … 1, into ``out`` (batch, length) and return it."""


class Codes(Protocol):
    """The acoustic teacher's codes; ``mert_core.targets.TargetStore`` is one."""

    @property
    def codebooks(self) -> int:
        """Return the number of codebooks."""

    @property
    def entries(self) -> int:
        """Return the number of entries of each codebook."""

    def codes(self, rows: Rows, offset_frames: Rows, frames: int) -> NDArray[np.int64]:
        """Return int64 (batch, frames, codebooks)."""


@dataclass(frozen=True)
class Batch:
    """One worker's micro-batch.

    Attributes:
        noisy: (batch, samples) float32, with the mixture; what the student hears.
        clean: (batch, samples) float32; what the targets are computed from.
        codes: (batch, frames, codebooks) int64.
        mask: (batch, frames) bool.
        masked_frames: number of true values in ``mask``.
        codebooks: the codebooks to predict, the same for all workers of a global batch.
    """

    noisy: Tensor
    clean: Tensor
    codes: Tensor
    mask: Tensor
    masked_frames: int
    codebooks: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        noisy, clean, codes, mask = (x.to(device) for x in (self.noisy, self.clean, self.codes, self.mask))
        return Batch(noisy, clean, codes, mask, self.masked_frames, self.codebooks)


class CropSource:
    """Batches of one split.

    An epoch visits every track once per full crop length it holds, in an order of its own, each time at a random place
    on the 320-sample grid, where codes and samples align exactly.

    Raises:
        MertError: no track of the split is as long as a crop.
    """

    def __init__(
        self, music: Music, targets: Codes, params: Pretrain, split: str, seed: int, *, corrupt: bool = True
    ) -> None:
        self.music, self.targets, self.params, self.corrupt = music, targets, params, corrupt
        self.crop_samples = crop_samples(params.crop_seconds)
        self.frames = student_frames(self.crop_samples)
        self._seed = (seed, _SPLITS[split])
        rows = np.asarray(music.rows(split), dtype=np.int64)
        samples = np.asarray(music.tracks["samples"], dtype=np.int64)[rows]
        whole = samples // self.crop_samples
        if not whole.any():
            raise MertError(
                f"no track of the {split} split is as long as a crop ({params.crop_seconds:g} s): it has {len(rows)} "
                f"track(s), the longest of {samples.max(initial=0) / SAMPLE_RATE:.2f} s. Shorten pretrain.crop_seconds "
                "or add music."
            )
        self._slots = np.repeat(rows, whole)
        self._places = np.repeat((samples - self.crop_samples) // HOP_SAMPLES + 1, whole)
        low_samples, high_samples = (min(round(s * SAMPLE_RATE), self.crop_samples) for s in params.mixture_seconds)
        self._snippet_samples = low_samples, high_samples
        self._orders: dict[int, NDArray[np.int64]] = {}  # of at most two neighbouring epochs
        self._ordering = threading.Lock()

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return len(self._slots)

    def _generator(self, stream: int, position: int) -> np.random.Generator:
        epoch, index = divmod(position, len(self))
        return np.random.default_rng((*self._seed, stream, epoch, index))

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        with self._ordering:  # threads that prepare updates ahead ask in turn for the end of one epoch and the next one
            if epoch not in self._orders:
                kept = {known: order for known, order in self._orders.items() if known == epoch - 1}
                drawn = np.random.default_rng((*self._seed, _EPOCH, epoch)).permutation(len(self))
                self._orders = {**kept, epoch: drawn}
            return self._orders[epoch]

    def locate(self, positions: Rows) -> tuple[Rows, Rows]:
        """Return the track rows and sample offsets of crops, given positions counted from the start of training."""
        slots = np.array([self._permutation(p // len(self))[p % len(self)] for p in positions.tolist()])
        draws = np.array([self._generator(_CROP, p).random() for p in positions.tolist()])
        return self._slots[slots], (draws * self._places[slots]).astype(np.int64) * HOP_SAMPLES

    def codes(self, positions: Rows) -> NDArray[np.int64]:
        """Return the codes (batch, frames, codebooks) of crops alone."""
        rows, offsets = self.locate(positions)
        return self.targets.codes(rows, offsets // HOP_SAMPLES, self.frames)

    def batch(self, first: int, clips: int, own: range) -> Batch:
        """Return a worker's share of the global batch of ``clips`` crops that begins at position ``first``.

        Args:
            first: position of the global batch's first crop, counted from the start of training.
            clips: crops of the global batch, over all workers.
            own: the worker's crops within it.
        """
        positions = np.arange(first, first + clips, dtype=np.int64)
        mine = positions[own.start : own.stop]
        snippets = self._snippets(mine, own, clips)
        needed = sorted(set(own) | {snippet.source for row in snippets for snippet in row})
        rows, offsets = self.locate(positions[needed])
        sound = np.empty((len(needed), self.crop_samples), dtype=np.float32)
        self.music.crops(rows, offsets, self.crop_samples, sound)
        place = {clip: number for number, clip in enumerate(needed)}
        own_places = [place[clip] for clip in own]
        clean = sound[own_places]
        noisy = clean.copy()
        for target, row in zip(noisy, snippets, strict=True):
            for s in row:
                source = sound[place[s.source]]
                target[s.start : s.start + s.samples] += source[s.source_start : s.source_start + s.samples]
        codes = self.targets.codes(rows[own_places], offsets[own_places] // HOP_SAMPLES, self.frames)
        masks = self._masks(positions, own)
        return Batch(
            torch.from_numpy(noisy),
            torch.from_numpy(clean),
            torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64)),
            torch.from_numpy(masks),
            int(masks.sum()),
            self.asked(first),
        )

    def asked(self, first: int) -> tuple[int, ...]:
        """Return the codebooks to predict in the global batch that begins at a position; all of them in validation.

        Those that ``acoustic_codebooks`` names top or bottom are the only ones, in validation too.
        """
        count, choice = self.targets.codebooks, self.params.acoustic_codebooks
        if choice == "random" and self.corrupt:
            return (int(self._generator(_CODEBOOK, first).integers(count)),)
        return {"top": (0,), "bottom": (count - 1,)}.get(choice, tuple(range(count)))

    def _masks(self, positions: Rows, own: range) -> NDArray[np.bool_]:
        """Return the masks of a worker's clips, trimmed within fixed groups, so that no worker's share matters."""
        group = self.params.mask_trim_clips
        masks = []
        for begin in range(own.start // group * group, own.stop, group):
            members = positions[begin : begin + group].tolist()
            generators = [self._generator(_MASK, position) for position in members]
            drawn = span_masks(generators, self.frames, self.params.mask_probability, self.params.mask_frames)
            masks.append(drawn[max(0, own.start - begin) : own.stop - begin])
        return np.concatenate(masks)

    def _snippets(self, mine: Rows, own: range, clips: int) -> list[list[Snippet]]:
        if not self.corrupt:
            return [[] for _ in own]
        fixed = self.params.mixture_probability, self.params.mixture_snippets, self._snippet_samples
        return [
            draw_snippets(self._generator(_MIXTURE, position), clip, clips, self.crop_samples, *fixed)
            for position, clip in zip(mine.tolist(), own, strict=True)
        ]


def crop_samples(seconds: float) -> int:
    """Return a crop's samples: the whole frames (320 samples) that fit into it."""
    return round(seconds * SAMPLE_RATE) // HOP_SAMPLES * HOP_SAMPLES
