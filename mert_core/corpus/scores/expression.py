"""What a player does to a note while it sounds: tuning, vibrato, a slide into it, its loudness from start to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE

_VIBRATO_GROWS_SECONDS = 0.1


@dataclass(frozen=True)
class Expression:
    """How a note moves.

    Attributes:
        tuning_cents: all of it, from the key's pitch.
        vibrato_hertz: how often its pitch swings.
        vibrato_cents: how far, to either side.
        slide_cents: where it begins, from its pitch.
        slide_seconds: how long it takes to arrive.
        attack_seconds: how long it takes to reach its loudness, beside the instrument's own attack.
        levels_db: loudness at equally distant moments of the time that it is held, joined by straight lines.
    """

    tuning_cents: float = 0.0
    vibrato_hertz: float = 0.0
    vibrato_cents: float = 0.0
    slide_cents: float = 0.0
    slide_seconds: float = 0.0
    attack_seconds: float = 0.0
    levels_db: tuple[float, ...] = (0.0,)

    def cents(self, length: int) -> NDArray[np.float64]:
        """Return how far the pitch is from the key's at each sample, (length,)."""
        time = np.arange(length) / SAMPLE_RATE
        bend = np.full(length, self.tuning_cents)
        if self.vibrato_cents:
            swing = np.sin(2 * np.pi * self.vibrato_hertz * time)
            bend += self.vibrato_cents * np.clip(time / _VIBRATO_GROWS_SECONDS, 0, 1) * swing
        if self.slide_cents:
            bend += self.slide_cents * np.clip(1 - time / self.slide_seconds, 0, 1)
        return bend

    def level(self, held: int, length: int) -> NDArray[np.float32]:
        """Return the gain at each sample, (length,), of a note whose key is held for ``held`` samples."""
        time = np.arange(length)
        moments = np.linspace(0, held, max(len(self.levels_db), 2))
        levels_db = self.levels_db * 2 if len(self.levels_db) == 1 else self.levels_db
        gain = 10 ** (np.interp(time, moments, levels_db) / 20)
        if self.attack_seconds:
            gain *= np.clip(time / (self.attack_seconds * SAMPLE_RATE), 0, 1)
        return gain.astype(np.float32)
