"""Running the acoustic teacher over a corpus, shard by shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.corpus import Corpus
from mert_core.files import atomic_path
from mert_core.targets.store import CODE_TYPE, shard_name
from mert_core.teachers import AcousticTeacher
from mert_core.workers import single_threads

# Samples in one batch, padding included: almost three minutes. A longer track is a batch of its own.
_BATCH_SAMPLES = 4_000_000


def encode_corpus(corpus: Corpus, teacher: AcousticTeacher, folder: Path) -> list[Path]:
    """Write the codes of every track; a shard that lies in ``folder`` already, whole, is kept.

    Track by track the codes stand where its samples stand in the PCM shard: sample offset o, frame offset o / 320.

    Args:
        corpus: tracks whose offsets and lengths are multiples of 320 samples.
        teacher: gives the codes.
        folder: receives ``00000.codes`` …, raw little-endian uint16 (frames, codebooks).

    Returns:
        The shards' paths, in order.
    """
    shards = corpus.column("shard")
    paths = []
    with tqdm(desc="targets", unit="s", unit_scale=True, total=round(corpus.seconds)) as bar:
        for shard in range(int(shards.max()) + 1 if len(corpus) else 0):
            rows = np.flatnonzero(shards == shard)
            path = folder / shard_name(shard)
            ends = corpus.column("offset_samples")[rows] + corpus.samples[rows]
            frames = int(ends.max()) // HOP_SAMPLES if len(rows) else 0
            if not path.exists() or path.stat().st_size != frames * teacher.codebooks * CODE_TYPE.itemsize:
                codes = _encode_shard(corpus, teacher, rows, frames, bar)
                with atomic_path(path) as temporary:
                    codes.tofile(temporary)
            else:
                bar.update(float(corpus.samples[rows].sum()) / SAMPLE_RATE)
            paths.append(path)
    return paths


def _encode_shard(
    corpus: Corpus, teacher: AcousticTeacher, rows: NDArray[np.int64], frames: int, bar: tqdm
) -> NDArray[np.uint16]:
    codes = np.zeros((frames, teacher.codebooks), dtype=CODE_TYPE)
    offsets = corpus.column("offset_samples")
    batches = _batches(rows, corpus.samples)

    def codes_of(batch: NDArray[np.int64]) -> NDArray[np.int64]:
        # The teacher is causal, so silence after a track's end does not touch the track's codes.
        waveform = torch.zeros(len(batch), int(corpus.samples[batch].max()))
        for place, row in enumerate(batch):
            pcm = corpus.pcm(int(row))
            waveform[place, : len(pcm)] = torch.from_numpy(pcm.astype(np.float32)) / 32768.0
        return teacher.encode(waveform).numpy()

    with single_threads() as pool:
        for batch, found in zip(batches, pool.map(codes_of, batches), strict=True):
            for place, row in enumerate(batch):
                begin, count = offsets[row] // HOP_SAMPLES, corpus.samples[row] // HOP_SAMPLES
                codes[begin : begin + count] = found[place, :count]
            bar.update(float(corpus.samples[batch].sum()) / SAMPLE_RATE)
    return codes


def _batches(rows: NDArray[np.int64], samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows in batches of similar length, each within the limit after padding, or a single row."""
    ordered = rows[np.argsort(samples[rows], kind="stable")]
    batches: list[list[int]] = []
    for row in ordered:
        if batches and (len(batches[-1]) + 1) * int(samples[row]) <= _BATCH_SAMPLES:
            batches[-1].append(int(row))
        else:
            batches.append([int(row)])
    return [np.array(batch) for batch in batches]
