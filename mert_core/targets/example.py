"""A few seconds of targets and of what they were made from, for the report's figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.frames import FRAME_RATE, HOP_SAMPLES
from mert_core.audio.pcm import to_float32
from mert_core.audio.spectra import LogMel
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import SPLITS
from mert_core.targets.form import EXAMPLE_NAME, number_type
from mert_core.targets.kept import Made
from mert_core.targets.plan import ShardPlan
from mert_core.teachers.base import Teacher, online
from mert_core.teachers.kinds import Kind

EXAMPLE_SECONDS = 6


def write_example(
    folder: Path, corpus: Corpus, kind: Kind, plans: list[ShardPlan], shards: list[Made], splits: NDArray[np.int8]
) -> int:
    """Write ``example.npz``: ``targets`` (frames, width) and ``log_mel`` (frames, 128) of a track's first seconds.

    It is the first validation track, or the first of all if there is none.

    Returns:
        The track's row.
    """
    valid = np.flatnonzero(splits == SPLITS.index("valid"))
    row = int(valid[0]) if len(valid) else 0
    place = next(number for number, plan in enumerate(plans) if row in plan.rows)
    plan, made = plans[place], shards[place]
    at = int(np.flatnonzero(plan.rows == row)[0])
    frames = min(int(plan.samples[at]) // HOP_SAMPLES, EXAMPLE_SECONDS * FRAME_RATE)
    begin = int(plan.offsets[at]) // HOP_SAMPLES
    targets = np.memmap(made.targets, number_type(kind), "r", shape=(plan.frames, kind.width))[begin : begin + frames]
    with (folder / EXAMPLE_NAME).open("wb") as stream:
        np.savez(stream, targets=np.array(targets), log_mel=_log_mel(corpus, row, frames))
    return row


def example_of(teacher: Teacher, corpus: Corpus) -> dict[str, NDArray[Any]]:
    """Return the same of a teacher whose targets are not stored: it hears what it must of that track, here and now."""
    valid = corpus.rows("valid")
    row = int(valid[0]) if len(valid) else 0
    track_frames = int(corpus.samples[row]) // HOP_SAMPLES
    frames = min(track_frames, EXAMPLE_SECONDS * FRAME_RATE)
    _, end = teacher.hears(0, frames, track_frames)
    with torch.inference_mode():
        targets = online(teacher, [torch.from_numpy(to_float32(corpus.pcm(row)[: end * HOP_SAMPLES]))], [0], frames)
    return {"targets": targets[0].numpy(), "log_mel": _log_mel(corpus, row, frames)}


def _log_mel(corpus: Corpus, row: int, frames: int) -> NDArray[np.float16]:
    waveform = torch.from_numpy(to_float32(corpus.pcm(row)[: frames * HOP_SAMPLES]))
    return LogMel()(waveform.unsqueeze(0))[0, :frames].numpy().astype(np.float16)
