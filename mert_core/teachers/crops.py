"""Random crops of one split's music, for everything that teachers learn."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.errors import MertError

_FULL_SCALE = 32768.0


class Music(Protocol):
    """What fitting needs of a corpus; `mert_core.teachers.music.StoredMusic` is one."""

    samples: NDArray[np.int64]

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split."""

    def crops(self, rows: NDArray[np.int64], offset_samples: NDArray[np.int64], length: int) -> NDArray[np.int16]:
        """Return equally long crops, int16 (batch, length)."""


class CropSampler:
    """Draws crops uniformly over the music of one split; a batch is a pure function of (seed, step).

    Args:
        music: the corpus.
        split: of it.
        length: samples of a crop.
        seed: of the draw.
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
        self._ends = np.cumsum(music.samples[self._rows] - length + 1)

    def batch(self, step: int, clips: int) -> Tensor:
        """Return float32 crops (clips, samples)."""
        generator = np.random.default_rng([self._seed, step])
        places = generator.integers(self._ends[-1], size=clips)
        index = np.searchsorted(self._ends, places, side="right")
        rows = self._rows[index]
        offsets = self._ends[index] - 1 - places
        crops = self._music.crops(rows, offsets, self.length)
        return torch.from_numpy(crops.astype(np.float32) / _FULL_SCALE)
