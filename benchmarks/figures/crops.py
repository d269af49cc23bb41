"""Random 5 s crops as float32 batches of 16, from 30 s songs at 24 kHz, in this process and with a warm cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.comparators import crops as comparators
from benchmarks.row import Row, Tell, per_second
from benchmarks.student import SAMPLE_RATE
from benchmarks.timing import Pairs, paired
from mert_core.data.shards import ShardReader, ShardWriter

SONGS, SONG_SECONDS, CROP_SECONDS, CLIPS = 64, 30, 5, 16
TARGETS = {"WebDataset FLAC": 100.0, "WebDataset raw": 10.0, "FLAC seek": 25.0}


def songs(count: int, seconds: int) -> list[np.ndarray]:
    """Return harmonic tones in noise, int16 (samples,): FLAC halves them, like quiet music."""
    generator = np.random.default_rng(0)
    time = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    made = []
    for pitch in generator.uniform(80, 800, count):
        tones = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 9))
        made.append((8000 * tones + 300 * generator.standard_normal(time.size)).astype("<i2"))
    return made


def ours(folder: Path, made: list[np.ndarray], samples: int, clips: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches (clips, samples) without end, from memory-mapped shards."""
    with ShardWriter(folder / "shards", 256) as writer:
        places = np.array([writer.append(song) for song in made])
    reader, generator = ShardReader(folder / "shards"), np.random.default_rng(seed)
    room = np.array([song.size for song in made]) - samples + 1
    while True:
        rows = generator.integers(len(made), size=clips)
        starts = places[rows, 1] + (generator.random(clips) * room[rows]).astype(np.int64)
        out = np.empty((clips, samples), dtype=np.float32)
        yield torch.from_numpy(reader.gather(places[rows, 0], starts, samples, out))


def _pass(batches: Iterator[torch.Tensor]) -> None:
    """Take as many crops as there are songs: WebDataset reads in bursts of one pass over its shard."""
    for _ in range(SONGS // CLIPS):
        next(batches)


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure against each comparator."""
    samples, found = CROP_SECONDS * SAMPLE_RATE, []
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), songs(SONGS, SONG_SECONDS)
        comparators.write_shards(folder, made, SAMPLE_RATE)
        own = ours(folder, made, samples, CLIPS, 0)
        sources = (comparators.webdataset_flac, comparators.webdataset_raw, comparators.flac_seek)
        for (against, target), source in zip(TARGETS.items(), sources, strict=True):
            other = source(folder, samples, CLIPS, 0)
            pairs = paired(partial(_pass, own), partial(_pass, other), 3 * rounds, tell, times=5)
            crops = Pairs(*([seconds / SONGS for seconds in side] for side in (pairs.ours, pairs.theirs)))
            found.append(Row.of_speed(f"5 s crops against {against}", target, crops, per_second("crops")))
    return found
