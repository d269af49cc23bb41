"""Which crop of which track comes when: computed per crop, with 16 bytes per track and none per crop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.pretrain.permutation import Permutation, keys, uniform

Rows = NDArray[np.int64]


class Crops:
    """The crops of an epoch, in each epoch in another order and at other places.

    A track has one slot for each full crop length that it holds. The order of the slots is a keyed permutation, a
    slot's track comes from a guide table (Chen and Asau 1974): a crop costs the same for a thousand tracks and for
    millions.

    Args:
        rows: (tracks,) the tracks to cut from.
        samples: (music,) lengths of all tracks of the music, which ``rows`` index.
        crop_samples: length of a crop, a multiple of 320.
        order: whole numbers; they and the epoch decide the order.
        place: whole numbers; they and the position decide where in its track a crop begins.
    """

    def __init__(
        self, rows: Rows, samples: Rows, crop_samples: int, *, order: tuple[int, ...], place: tuple[int, ...]
    ) -> None:
        self._samples, self._crop_samples, self._order = samples, crop_samples, order
        self._rows = rows.astype(np.int32)
        self._place_key = keys(*place, count=1)[0]
        self._ends = np.cumsum(samples[rows] // crop_samples)  # of each track's slots
        self._count = int(self._ends[-1]) if len(self._ends) else 0
        # guide[g]: the first track that ends behind the first slot of bucket g; there are as many buckets as tracks
        first_slots = np.arange(len(rows) + 1) * self._count // max(len(rows), 1)
        self._guide = np.searchsorted(self._ends, first_slots, side="right").astype(np.int32)
        self._epoch = -1, Permutation(1, *order)

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return self._count

    def locate(self, positions: Rows) -> tuple[Rows, Rows]:
        """Return the track rows and sample offsets of crops, given positions counted from the start of training.

        Offsets lie on the 320-sample grid.
        """
        positions = np.asarray(positions, dtype=np.int64)
        epochs, places = np.divmod(positions, self._count)
        slots = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            slots[here] = self._permutation(epoch)(places[here])
        rows = self._rows[self._track(slots)].astype(np.int64)
        choices = (self._samples[rows] - self._crop_samples) // HOP_SAMPLES + 1
        return rows, (uniform(positions, self._place_key) * choices).astype(np.int64) * HOP_SAMPLES

    def _permutation(self, epoch: int) -> Permutation:
        if self._epoch[0] != epoch:
            self._epoch = epoch, Permutation(self._count, *self._order, epoch)
        return self._epoch[1]

    def _track(self, slots: Rows) -> Rows:
        """Return the first track that ends behind each slot, by bisection within the slot's bucket."""
        bucket = slots * len(self._rows) // self._count
        low, high = self._guide[bucket].astype(np.int64), self._guide[bucket + 1].astype(np.int64)
        while (low < high).any():
            middle = (low + high) // 2
            behind = self._ends[middle] > slots
            high = np.where(behind, middle, high)
            low = np.where(behind, low, middle + 1)
        return low
