"""Activations of beats that are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 75.0


def beats_at(bpm: NDArray[np.float64] | float, seconds: float, first: float = 0.3) -> NDArray[np.float64]:
    """Seconds of beats; a tempo per second of time, or one."""
    tempo = np.broadcast_to(np.asarray(bpm, dtype=np.float64), int(np.ceil(seconds)) + 1)
    found, now = [], first
    while now < seconds:
        found.append(now)
        now += 60 / float(np.interp(now, np.arange(len(tempo)), tempo))
    return np.array(found)


def activation_of(
    beats: NDArray[np.float64], seconds: float, generator: np.random.Generator, noise: float = 0.0, rate: float = RATE
) -> NDArray[np.float64]:
    """Bumps of two frames' width on a floor of 0.02, with noise; (frames,)."""
    time = np.arange(int(seconds * rate)) / rate
    distance = np.abs(time[:, None] - beats[None]).min(axis=1, initial=np.inf)
    clean = 0.02 + 0.9 * np.exp(-0.5 * (distance * rate / 0.8) ** 2)
    return np.clip(clean + noise * np.abs(generator.normal(size=len(time))), 0, 1)
