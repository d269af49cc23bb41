"""Which crop of which track comes when.

Both samplers cut crops of one length from the tracks of a split. `EpochCrops`, for pre-training, visits each track once
per crop length that it holds, in each epoch in another order; `RandomCrops`, for fitting teachers, draws uniformly over
the music. In both a crop follows from the seed and its number alone, so that training goes on exactly where it was
interrupted. Nothing is shuffled in memory: the order of an epoch is a `Permutation` that is computed crop by crop, with
12 bytes per track and none per crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.errors import MertError

if TYPE_CHECKING:
    from torch import Tensor

Rows = NDArray[np.int64]


class Music(Protocol):
    """What crops are cut from; `mert_core.data.corpus.Corpus` is one."""

    @property
    def samples(self) -> Rows:
        """Return the length of every track in samples (tracks,)."""

    def rows(self, split: str) -> Rows:
        """Return the row numbers of a split's tracks."""

    def crops(self, rows: Rows, offset_samples: Rows, length: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write waveforms, −1 … 1, into ``out`` (batch, length) and return it."""


class EpochCrops:
    """The crops of an epoch, in each epoch in another order and at other offsets.

    A track has one slot for each full crop length that it holds. The order of the slots is a keyed permutation, and a
    slot's track is the first that ends behind it, which bisection finds.

    Args:
        rows: (tracks,) rows of the tracks to cut from.
        samples: (music,) lengths of all tracks of the music, which ``rows`` index.
        crop_samples: length of a crop, a multiple of 320.
        order: whole numbers; they and the epoch decide the order.
        offset: whole numbers; they and the position decide where in its track a crop begins.
    """

    def __init__(
        self, rows: Rows, samples: Rows, crop_samples: int, *, order: tuple[int, ...], offset: tuple[int, ...]
    ) -> None:
        self._samples, self._crop_samples, self._order = samples, crop_samples, order
        self._rows = rows.astype(np.int32)
        self._offset_key = keys(*offset, count=1)[0]
        self._ends = np.cumsum(samples[rows] // crop_samples)  # of each track's slots
        self._count = int(self._ends[-1]) if len(self._ends) else 0
        self._epoch = -1, Permutation(1, *order)

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return self._count

    def locate(self, positions: Rows) -> tuple[Rows, Rows]:
        """Return the track rows and sample offsets of crops, given positions counted from the start of training.

        Offsets lie on the 320-sample grid.
        """
        positions = np.asarray(positions, dtype=np.int64)
        epochs, indices = np.divmod(positions, self._count)
        slots = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            if self._epoch[0] != epoch:
                self._epoch = epoch, Permutation(self._count, *self._order, epoch)
            here = epochs == epoch
            slots[here] = self._epoch[1](indices[here])
        rows = self._rows[np.searchsorted(self._ends, slots, side="right")].astype(np.int64)
        choices = (self._samples[rows] - self._crop_samples) // HOP_SAMPLES + 1
        return rows, (uniform(positions, self._offset_key) * choices).astype(np.int64) * HOP_SAMPLES


class RandomCrops:
    """Crops drawn uniformly over the music of one split; a batch is a pure function of (seed, step).

    Args:
        music: the corpus to cut from.
        split: train, valid or test.
        length: samples of a crop.
        seed: seed of the draw.
        key: the parameter that decides the length, for the message when no track is as long.

    Raises:
        MertError: no track is as long as a crop, or a crop has no samples.
    """

    def __init__(self, music: Music, split: str, length: int, seed: int, key: str) -> None:
        self._music, self._seed, self.length = music, seed, length
        rows = music.rows(split)
        self._rows = rows[music.samples[rows] >= length]
        if not len(self._rows) or not length:
            raise MertError(
                f"{key}: no track of the {split} split ({len(rows)} tracks) holds a crop of "
                f"{length / SAMPLE_RATE:g} s; choose another length, or add longer music to the corpus"
            )
        self._ends = np.cumsum(music.samples[self._rows] - length + 1)  # of each track's possible offsets

    def batch(self, step: int, clips: int) -> Tensor:
        """Return float32 crops (clips, samples)."""
        import torch  # half a second and 200 MB, which whoever wants the order of crops alone need not have

        generator = np.random.default_rng([self._seed, step])
        draws = generator.integers(self._ends[-1], size=clips)
        index = np.searchsorted(self._ends, draws, side="right")
        offsets = self._ends[index] - 1 - draws
        out = np.empty((clips, self.length), np.float32)
        return torch.from_numpy(self._music.crops(self._rows[index], offsets, self.length, out))


_ROUNDS = 6
_SHIFT_A, _SHIFT_B, _SHIFT_C = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTOR_A, _FACTOR_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Permutation:
    """A keyed pseudo-random permutation of range(n), in memory that does not depend on n.

    A Feistel network permutes the numbers of as few bits as hold n; a result that is not below n goes through it again
    until one is (cycle walking: Black and Rogaway 2002), twice on average at most.

    Args:
        size: n, at least 1.
        seed: whole numbers that are not negative; they decide the order.
    """

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        bits = max((size - 1).bit_length(), 2)
        self._right_bits = np.uint64(bits // 2)
        self._right_mask = np.uint64((1 << (bits // 2)) - 1)
        self._left_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = keys(*seed)

    def __call__(self, indices: Rows) -> Rows:
        """Return the permuted indices (n,)."""
        values = self._network(indices.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._right_bits, values & self._right_mask
        for key_left, key_right in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = left ^ (mix(right, key_left) & self._left_mask)
            right = right ^ (mix(left, key_right) & self._right_mask)
        return (left << self._right_bits) | right


def mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return 64 well mixed bits for each value, by SplitMix64's finalizer (Steele, Lea and Flood 2014)."""
    z = (values ^ key) * _FACTOR_B + key
    z = (z ^ (z >> _SHIFT_A)) * _FACTOR_A
    z = (z ^ (z >> _SHIFT_B)) * _FACTOR_B
    return z ^ (z >> _SHIFT_C)


def keys(*seed: int, count: int = _ROUNDS) -> NDArray[np.uint64]:
    """Return independent keys (count,) from whole numbers that are not negative."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64).astype(np.uint64)


def uniform(positions: NDArray[np.int64], key: np.uint64) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each position, a function of position and key alone."""
    return (mix(positions.astype(np.uint64), key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
