"""A few seconds of tones with matching codes, in memory and picklable, in place of the stages before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mert_core.config import HealthConfig, PretrainConfig
from mert_core.data.target_kinds import Codes
from mert_core.teachers.spectra import ChromaTeacher, ConstantQTeacher, LogMelTeacher
from mert_core.training.batches import CropSource
from mert_core.training.callbacks import Observer, SilentObserver
from mert_core.training.loss import Objective
from mert_core.training.run import Job, RunInputs, build_objective, work
from mert_core.training.targets import TargetSet
from mert_core.training.trainer import Report
from mert_core.training.worker import Worker

SPECTRA = {"cqt": ConstantQTeacher, "logmel": LogMelTeacher, "chroma": ChromaTeacher}


def health(**changes: Any) -> HealthConfig:
    """Return the bounds of a run's health; keyword arguments change them."""
    base: dict[str, Any] = {
        "every": 2,
        "perplexity": {"below": 0.02, "action": "warn"},
        "dead_codes": {"above": 0.9, "action": "warn"},
        "effective_rank": {"below": 2.0, "action": "warn"},
    }
    return HealthConfig(**{**base, **changes})


def predicted(**weights: float) -> list[dict[str, Any]]:
    """Return the terms of ``pretrain.teachers``: codes ``tones`` are stored, spectra are computed from the crop."""
    return [
        {"teacher": name, "targets": "crop" if name in SPECTRA else "stored", "weight": weight}
        for name, weight in weights.items()
    ]


def params(**changes: Any) -> PretrainConfig:
    """Return a run of a few seconds; keyword arguments change it."""
    base: dict[str, Any] = {
        "model": {"preset": "mert-tiny"},
        "seed": 7,
        "workers": 0,
        "max_worker_failures": 1,
        "crop_seconds": 0.5,
        "global_batch_size": 4,
        "local_batch_size": None,
        "max_steps": 6,
        "warmup_steps": 2,
        "schedule_steps": 100,
        "learning_rate": 1e-3,
        "mask_trim_clips": 8,
        "mixture_seconds": (0.1, 0.3),
        "teachers": predicted(tones=1.0, cqt=1.0),
        "precision": "fp32",
        "device": "cpu",
        "checkpoint_every": 2,
        "log_every": 3,
        "validate_every": 4,
        "validate_batches": 1,
        "health": health(),
    }
    return PretrainConfig(**{**base, **changes})


@dataclass(frozen=True)
class Tones:
    """Twelve tracks of random tones, a new one each quarter of a second; ``open`` is for a job."""

    seconds: float = 2.0

    def open(self) -> RunInputs:
        music = TonesMusic(self.seconds)
        return RunInputs(
            music,
            {"tones": TonesCodes(music), "pitches": TonesCodes(music, codebooks=1)},
            {name: kind().freeze() for name, kind in SPECTRA.items()},
        )


def crop_source(
    run: PretrainConfig, split: str = "train", seed: int = 0, *, corrupt: bool = True, data: Tones | None = None
) -> CropSource:
    data = data or Tones()
    return CropSource(data.open().music, target_set(run, data), run, split, seed, corrupt=corrupt)


def target_set(run: PretrainConfig, data: Tones | None = None) -> TargetSet:
    """Return the targets of a run on the tones."""
    inputs = (data or Tones()).open()
    return TargetSet(run.teachers, inputs.stored, inputs.teachers)


def job(run: PretrainConfig, out: Path | None = None, states: Path | None = None, seed: int = 7) -> Job:
    """Return a run on the tones, on one thread."""
    return Job(run, Tones().open, seed, 1, out, states)


def train(
    out: Path | None = None,
    states: Path | None = None,
    observer: Observer | None = None,
    report: Report | None = None,
    *,
    seed: int = 7,
    **changes: Any,
) -> dict[str, Any]:
    """Train on the tones in this process and return the facts; ``out`` is made if it is missing."""
    if out is not None:
        out.mkdir(exist_ok=True)
    return work(job(params(**changes), out, states, seed), Worker(), observer or SilentObserver(), report)


def objective_of(run: PretrainConfig, seed: int = 0, start: Path | None = None) -> Objective:
    """Return the student of a run on the tones."""
    return build_objective(run, target_set(run).specs, seed, start)


class TonesMusic:
    """Implements ``Music``: ten training tracks, two for validation."""

    def __init__(self, seconds: float) -> None:
        generator = np.random.default_rng(5)
        samples = round(seconds * 24000) // 320 * 320
        self.pitches = generator.integers(0, 8, (12, samples // 6000 + 1)).repeat(6000, axis=1)[:, :samples]
        phase = np.cumsum(220 * 2 ** (self.pitches / 8) / 24000, axis=1)
        self.pcm = (8000 * np.sin(2 * np.pi * phase)).astype(np.int16)
        self.samples = np.full(12, samples)

    def rows(self, split: str) -> np.ndarray:
        return np.arange(10) if split == "train" else np.arange(10, 12)

    def crops(self, rows: np.ndarray, offset_samples: np.ndarray, length: int, out: np.ndarray) -> np.ndarray:
        for crop, row, start in zip(out, rows, offset_samples, strict=True):
            crop[:] = self.pcm[row, start : start + length] / np.float32(32768)
        return out


class TonesCodes:
    """Stands for a ``TargetStore``: one or two codebooks of 16 entries that follow the pitch."""

    def __init__(self, music: TonesMusic, codebooks: int = 2) -> None:
        frames = music.pitches[:, ::320]
        self.kind = Codes(codebooks, 16)
        self.table = np.stack([frames, 15 - frames], axis=-1)[..., :codebooks]

    def read(self, rows: np.ndarray, offset_frames: np.ndarray, frames: int) -> np.ndarray:
        return np.stack([self.table[row, at : at + frames] for row, at in zip(rows, offset_frames, strict=True)])
