"""Features with a planted answer, and a small probe set of real audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.data.track import SourceTrack
from mert_core.probing.features import InMemory
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import ProbeSettings
from mert_core.probing.train import Examples, Score
from tests.stored import write_corpus

CLASSES = 4
RECIPE = ProbeSettings(hidden=32, dropout=0.2, batch_items=32, max_epochs=12, patience=4, plateau_patience=1)
RATES, SEEDS = [1e-3, 5e-3], [0, 1, 2]


def planted(items: int, seed: int, layers: int = 5, answer: int = 3, width: int = 12):
    """Noise in every layer but one, which shows the class plainly; (layers, items, width) and (items,)."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, CLASSES, items)
    features = generator.normal(size=(layers, items, width)).astype(np.float32)
    features[answer, np.arange(items), truth] += 8.0
    return features * 100 + 7, truth


def examples(features, truth) -> Examples:
    """One row per track, of a tensor or array (states, rows, width)."""
    return Examples(InMemory(torch.as_tensor(features)), np.asarray(truth))


def scoring(name: str, truth) -> Score:
    """The task's metric of a split with that truth."""
    return lambda outputs: METRICS[name](np.asarray(truth), outputs)


def write_probe_set(folder: Path, per_split: int = 24) -> None:
    """Tones: notes whose pitch is audible, mixes whose composer is loud or soft; splits of equal size."""
    generator = np.random.default_rng(0)
    tracks = (
        _track(kind, split, number, generator)
        for split in ("train", "valid", "test")
        for number in range(per_split)
        for kind in ("note", "mix")
    )
    write_corpus(folder, tracks, 1.0, "probe_set")


def _track(kind: str, split: str, number: int, generator: np.random.Generator) -> SourceTrack:
    choice = number % 3
    pitch = 48 + 12 * choice
    waveform = _tone(pitch, 0.25 if kind == "note" else 0.5, generator) * (0.3 if choice else 0.05)
    note = kind == "note"
    return SourceTrack(
        track_id=f"{kind}-{split}-{number}",
        waveform=waveform,
        source_rate=24000,
        source=f"{kind}/{split}/{number}",
        piece=f"{split}-{number}",
        artist="",
        split=split,
        licence="CC0-1.0",  # type: ignore[arg-type]
        labels={
            "kind": kind,
            "key": np.int16(-1 if note or number == 0 else choice),
            "pitch": np.int16(pitch if note else -1),
            "family": ("piano", "brass", "strings")[choice] if note else "",
            "composer": "" if note else ("soft", "loud", "loud")[choice],
            "programs": [np.int16(0)],
        },
    )


def _tone(pitch: int, seconds: float, generator: np.random.Generator) -> NDArray[np.float32]:
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    time = np.arange(int(24000 * seconds)) / 24000
    noise = 0.01 * generator.normal(size=len(time))
    return (np.sin(2 * np.pi * hertz * time + generator.uniform(0, 6)) + noise).astype(np.float32)
