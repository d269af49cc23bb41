"""What probes read: the hidden states of many rows, in memory or not, standardised with the training rows' moments."""

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
"""How much is taken at once where features do not stay in memory: enough for a disk to read well."""
RESIDENT_BYTES = 4 << 30
"""Features up to this size are held in memory, as float32."""


class Features(Protocol):
    """Rows of hidden states; a row is an item, a chunk or a frame."""

    @property
    def states(self) -> int:
        """How many hidden states a row has."""

    @property
    def width(self) -> int:
        """Numbers per state."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width), which the caller may overwrite."""


class InMemory:
    """Features that are a tensor (states, rows, width)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def states(self) -> int:
        """How many hidden states a row has."""
        return self.tensor.shape[0]

    @property
    def width(self) -> int:
        """Numbers per state."""
        return self.tensor.shape[2]

    def __len__(self) -> int:
        return self.tensor.shape[1]

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self.tensor.index_select(1, torch.from_numpy(rows).to(self.tensor.device)).float()


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation over rows, each float32 (states, 1, width).

    Features are standardised with those of the training split, for every encoder alike: a probe's learning rate then
    means the same for all, and no encoder, pre-trained or floor, loses because its states are large or small. A
    constant feature has the deviation 1 and so stays constant.
    """

    mean: Tensor
    deviation: Tensor

    def standardise(self, states: Tensor) -> Tensor:
        """Return (states, rows, width), standardised in place."""
        return states.sub_(self.mean).div_(self.deviation)


def moments(features: Features) -> Moments:
    """Return the moments of all rows, read once, slab by slab.

    Raises:
        MertError: there is no row, or a number is not finite.
    """
    if not len(features):
        raise MertError("there is no row to train probes on. Look at why every clip was left out (`mert doctor`).")
    seen, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for slab in (features.take(rows) for rows in _slabs(features)):
        rows = slab.shape[1]
        average = slab.mean(dim=1, keepdim=True)
        spread = (slab - average).square_().sum(dim=1, keepdim=True).double()  # ten times as fast as `torch.var_mean`
        step = average.double() - mean
        squares = squares + spread + step.square() * (seen * rows / (seen + rows))
        mean = mean + step * (rows / (seen + rows))
        seen += rows
    if not (mean.isfinite().all() and squares.isfinite().all()):
        raise MertError(
            "some embeddings are not finite: the model has diverged. Look at its training curve and train it again."
        )
    deviation = (squares / seen).sqrt()
    varies = deviation > 1e-6 * (1 + mean.abs())
    return Moments(mean.float(), torch.where(varies, deviation, 1.0).float())


def _slabs(features: Features) -> Iterator[NDArray[np.int64]]:
    size = rows_of(SLAB_BYTES, features)
    yield from (np.arange(start, min(start + size, len(features))) for start in range(0, len(features), size))


def rows_of(size: int, features: Features) -> int:
    """Return how many rows fit into so many bytes, at least one."""
    return max(1, size // (features.states * features.width * 4))


class Standardised:
    """Features as probes see them: standardised, on the device they train on; in memory if they are small enough."""

    def __init__(self, features: Features, found: Moments, device: str = "cpu", hold: bool = True) -> None:
        self.features = features
        self.device = device
        self.moments = Moments(found.mean.to(device), found.deviation.to(device))
        self._held: Tensor | None = None
        if hold and len(features) <= rows_of(_room(device), features):
            shape = features.states, len(features), features.width
            self._held = torch.empty(shape, device=device)
            for rows in _slabs(features):
                self._held[:, rows[0] : rows[-1] + 1] = features.take(rows)
            self.moments.standardise(self._held)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        if self._held is not None:
            return self._held.index_select(1, torch.from_numpy(rows).to(self.device))
        return self.moments.standardise(self.features.take(rows).to(self.device))

    def slabs(self) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows in order: the first one's number and (states, rows, width)."""
        for rows in _slabs(self.features):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            yield start, self._held[:, start:stop] if self._held is not None else self.take(rows)


def _room(device: str) -> int:
    return RESIDENT_BYTES if device == "cpu" else torch.cuda.mem_get_info(device)[0] // 2
