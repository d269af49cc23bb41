"""Synthetic music: seeded melodies of decaying notes in some noise, every frame unlike the next."""

from __future__ import annotations

import torch
from torch import Tensor

from mert_core.audio.grid import SAMPLE_RATE

_NOTES_PER_SECOND = 4


def melodies(songs: int, seconds: float, seed: int = 0) -> Tensor:
    """Return float32 (songs, samples) at 24 kHz, within ±1."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(seconds * SAMPLE_RATE)
    note = SAMPLE_RATE // _NOTES_PER_SECOND
    count = -(-samples // note)
    time = torch.arange(note) / SAMPLE_RATE
    pitch = 80 * 2 ** (torch.rand(songs, count, 1, generator=generator) * 3)
    bright, loud = (torch.rand(songs, count, 1, generator=generator) for _ in range(2))
    tones = sum(bright**k / k * torch.sin(2 * torch.pi * k * pitch * time) for k in range(1, 7))
    assert isinstance(tones, Tensor)
    music = (0.3 * loud * tones * torch.exp(-6 * time)).reshape(songs, -1)[:, :samples]
    return music + 0.01 * torch.randn(songs, samples, generator=generator)
