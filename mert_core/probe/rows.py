"""Some rows and hidden states of embeddings, as probes read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Taken(Protocol):
    """What is needed of `mert_core.probe.embeddings.Embeddings`."""

    states: int
    width: int

    def take(self, rows: NDArray[np.int64], states: Sequence[int] | None = None) -> Tensor:
        """Return float32 (states, len(rows), width)."""


class Rows:
    """A selection of rows and states; a `mert_core.probe.features.Features`.

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
