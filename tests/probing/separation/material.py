"""Two stems of noise that take turns, and features that show whose turn it is, or nothing."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.datasets.base import Clip
from mert_core.probing.features import InMemory, Moments, Standardized, moments
from mert_core.probing.separation.data import Mixture

RATE = 75.0
WIDTH, STATES = 6, 2


class ArraySound:
    """Sound that is held in memory."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples

    @property
    def identity(self) -> str:
        return hashlib.sha256(self._samples.tobytes()).hexdigest()

    def channels(self) -> NDArray[np.float32]:
        return self._samples

    def waveform(self) -> NDArray[np.float32]:
        return self._samples.mean(axis=0)


def turns(channels: int, samples: int, seed: int) -> NDArray[np.float32]:
    """Noise of two stems that sound in turn, (2, channels, samples)."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(2, channels, samples)).astype(np.float32) * np.float32(0.1)
    flips = np.cumsum(generator.uniform(size=samples // 2400 + 1) < 0.5) % 2
    first = np.repeat(flips, 2400)[:samples]
    return noise * np.stack([first, 1 - first])[:, None].astype(np.float32)


def clips(split: str, count: int, channels: int = 1, samples: int = 40000, seed: int = 0) -> list[Clip]:
    """Clips whose label is the stems ``left`` and ``right``."""
    found = []
    for number in range(count):
        stems = turns(channels, samples, seed + number)
        label = {name: ArraySound(stem) for name, stem in zip(("left", "right"), stems, strict=True)}
        found.append(Clip(f"{split}-{number}", split, ArraySound(stems.sum(axis=0)), label))  # type: ignore[arg-type]
    return found


def features_of(
    mixtures: list[Mixture], informed: bool, scale: Moments | None = None
) -> tuple[Standardized, NDArray[np.int64]]:
    """Features of mixtures, (states, rows, width), and where each begins: noise; in state 1 which stem sounds, too."""
    generator = np.random.default_rng(5)
    rows = []
    for mixture in mixtures:
        stems = np.stack([part.read(mixture.track_channels, mixture.samples) for part in mixture.stems])
        frames = mixture.samples // 320 - 1
        level = np.abs(stems).mean(axis=1)[:, : frames * 320].reshape(len(stems), frames, 320).mean(axis=2)
        row = generator.normal(size=(STATES, frames, WIDTH)).astype(np.float32)
        if informed:
            row[1, :, : len(stems)] += 200 * level.T
        rows.append(torch.from_numpy(row))
    tensor = InMemory(torch.cat(rows, dim=1))
    offsets = np.concatenate([[0], np.cumsum([row.shape[1] for row in rows])]).astype(np.int64)
    return Standardized(tensor, scale or moments(tensor)), offsets
