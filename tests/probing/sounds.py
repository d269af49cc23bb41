"""Sounds that follow from a number, for tests of what is done with them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.errors import Reason, UnusableAudio


@dataclass(frozen=True)
class Noise:
    """Pink-ish noise: `number` is its seed and, by default, all of its identity."""

    number: int
    seconds: float = 0.5
    name: str = ""
    broken: Reason | None = None

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"{self.name or self}".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        if self.broken:
            raise UnusableAudio(self.broken, "made so")
        drawn = np.random.default_rng(self.number).normal(size=round(24000 * self.seconds))
        return (0.02 * np.cumsum(drawn) / (1 + np.arange(len(drawn))) ** 0.3 + 0.05 * drawn).astype(np.float32)

    def channels(self) -> NDArray[np.float32]:
        return np.stack([self.waveform(), replace(self, number=self.number + 1000).waveform()])


class Loudness:
    """Two states of width 3, a frame every 240 samples: scaled root mean squares. Quick and exact."""

    device, states, width, frame_rate = "cpu", 2, 3, 100.0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def pooled(self, waveform: Tensor) -> Tensor:
        return self.frames(waveform).mean(dim=2)

    def frames(self, waveform: Tensor) -> Tensor:
        level = waveform.unfold(1, 240, 240).square().mean(dim=-1).sqrt() * self.scale
        state = torch.stack([level, level * 2, level * 3], dim=-1)
        return torch.stack([state, -state])

    def describe(self) -> dict[str, Any]:
        return {"encoder": "loudness", "scale": repr(self.scale)}


class Counting(Loudness):
    """Notes how many windows it was asked for, and gives up after so many."""

    def __init__(self, scale: float = 1.0, most: float = math.inf) -> None:
        super().__init__(scale)
        self.most, self.windows = most, 0

    def frames(self, waveform: Tensor) -> Tensor:
        if waveform.shape != (2, 24000):  # the fingerprint's question
            self.windows += len(waveform)
        if self.windows > self.most:
            raise InterruptedError("enough")
        return super().frames(waveform)
