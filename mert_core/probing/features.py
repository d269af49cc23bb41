"""Rows of hidden states as probes read them: standardized, held in memory or read slab by slab, averaged per track.

A row is what one probe sees at a time: a window's mean, or a frame. Embeddings on disk give rows of every hidden state
(`Features`); `Standardized` scales them with the training split's moments and is what training and prediction read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.errors import MertError

SLAB_BYTES = 64 << 20
"""How much is read at once where features do not stay in memory: enough for a disk to read well."""
RESIDENT_BYTES = 4 << 30
"""Features up to this size are held in memory, as float32."""


class Features(Protocol):
    """Rows of hidden states.

    Attributes:
        states: how many hidden states a row has.
        width: numbers per state.
    """

    states: int
    width: int

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width), which the caller may overwrite."""


class InMemory:
    """Features that are a tensor (states, rows, width)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.states, _, self.width = tensor.shape

    def __len__(self) -> int:
        return self.tensor.shape[1]

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self.tensor.index_select(1, torch.from_numpy(rows).to(self.tensor.device)).float()


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation over rows, each float32 (states, 1, width).

    Features are standardized with those of the training split, for every encoder alike: a probe's learning rate then
    means the same for all, and no encoder, pre-trained or baseline, loses because its states are large or small. A
    constant feature has the deviation 1 and so stays constant.
    """

    mean: Tensor
    deviation: Tensor

    def standardize(self, states: Tensor) -> Tensor:
        """Return (states, rows, width), standardized in place."""
        return states.sub_(self.mean).div_(self.deviation)


def moments(features: Features) -> Moments:
    """Return the moments of all rows, read once, slab by slab.

    Raises:
        MertError: there is no row, or a number is not finite.
    """
    if not len(features):
        raise MertError("there is no row to train probes on. Look at why every clip was left out (`mert doctor`).")
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for slab in (features.take(rows) for rows in _slabs(features)):
        # Chan's update: the moments of the rows so far and those of this slab give the moments of both together.
        rows = slab.shape[1]
        slab_mean = slab.mean(dim=1, keepdim=True)
        slab_squares = (slab - slab_mean).square_().sum(dim=1, keepdim=True).double()  # ten times as fast as var_mean
        step = slab_mean.double() - mean
        squares = squares + slab_squares + step.square() * (count * rows / (count + rows))
        mean = mean + step * (rows / (count + rows))
        count += rows
    if not (mean.isfinite().all() and squares.isfinite().all()):
        raise MertError(
            "some embeddings are not finite: the model has diverged. Look at its training curve and train it again."
        )
    deviation = (squares / count).sqrt()
    varies = deviation > 1e-6 * (1 + mean.abs())
    return Moments(mean.float(), torch.where(varies, deviation, 1.0).float())


def rows_in(size: int, features: Features) -> int:
    """Return how many rows fit into ``size`` bytes, at least one."""
    return max(1, size // (features.states * features.width * 4))


def _slabs(features: Features) -> Iterator[NDArray[np.int64]]:
    size = rows_in(SLAB_BYTES, features)
    for start in range(0, len(features), size):
        yield np.arange(start, min(start + size, len(features)))


class Standardized:
    """Features as probes see them: standardized, on the device they train on; in memory if they are small enough.

    Args:
        features: rows as the encoder gave them.
        scale: moments of the training split.
        device: where probes train.
        hold: whether rows that fit are kept in memory.
    """

    def __init__(self, features: Features, scale: Moments, device: str = "cpu", hold: bool = True) -> None:
        self.features = features
        self.device = device
        self.moments = Moments(scale.mean.to(device), scale.deviation.to(device))
        self._held: Tensor | None = None
        free_bytes = RESIDENT_BYTES if device == "cpu" else torch.cuda.mem_get_info(device)[0] // 2
        if hold and len(features) <= rows_in(free_bytes, features):
            shape = features.states, len(features), features.width
            self._held = torch.empty(shape, device=device)
            for rows in _slabs(features):
                self._held[:, rows[0] : rows[-1] + 1] = features.take(rows)
            self.moments.standardize(self._held)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        if self._held is not None:
            return self._held.index_select(1, torch.from_numpy(rows).to(self.device))
        return self.moments.standardize(self.features.take(rows).to(self.device))

    def slabs(self) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows in order: the number of the first one, and (states, rows, width)."""
        for rows in _slabs(self.features):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            yield start, self._held[:, start:stop] if self._held is not None else self.take(rows)


def mean_over_tracks(outputs: NDArray[np.float32], tracks: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Average outputs of rows (…, rows, outputs), each of one of ``tracks`` (rows,), to (…, count, outputs).

    Raises:
        MertError: a track has no row.
    """
    track_of_row = torch.from_numpy(tracks)
    sums = torch.zeros(*outputs.shape[:-2], count, outputs.shape[-1])
    sums.index_add_(-2, track_of_row, torch.from_numpy(outputs))
    return (sums / rows_per_track(track_of_row, count)[:, None]).numpy()


def rows_per_track(tracks: Tensor, count: int) -> Tensor:
    """Return how many rows each track has (tracks,).

    Raises:
        MertError: a track has none.
    """
    rows = torch.bincount(tracks, minlength=count)
    if len(rows) != count or not rows.all():
        raise MertError(f"{len(tracks)} rows are not of {count} tracks: some have no row, or a row names another")
    return rows
