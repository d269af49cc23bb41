"""The student that is measured, and the batches it sees: the published recipe on synthetic music."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mert_core.data.target_kinds import Codes
from mert_core.features.cqt import CQT_BINS
from mert_core.model.config import PRESETS, MertConfig
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.teachers.spectra import ConstantQTeacher
from mert_core.training.corruption import span_masks
from mert_core.training.loss import Objective
from mert_core.training.targets import Batch, TargetSet

CODES, SPECTRUM = "encodec", "cqt"
CODEBOOKS, ENTRIES, TEMPERATURE = 8, 1024, 0.1
SAMPLE_RATE = 24000


@dataclass(frozen=True)
class Weights:
    """The published weights, under the names of ``mert_core.config.LossWeights``; both teachers' losses weigh 1."""

    feature_penalty: float = 10.0
    unmasked: float = 0.0


WEIGHTS: Any = Weights()


def student(preset: str, *, dropout: bool = True) -> MertConfig:
    """Return a preset without layer drop, whose randomness would be in the timings; without any dropout on demand."""
    shape = replace(PRESETS[preset], layerdrop=0.0)
    if dropout:
        return shape
    return replace(shape, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0)


def objective(shape: MertConfig, seed: int = 0) -> Objective:
    """Return our encoder and heads with the published losses."""
    return Objective(MertModel(shape, seed), heads(shape, seed + 1), WEIGHTS, target_set().specs)


def heads(shape: MertConfig, seed: int = 1) -> Heads:
    """Return heads for EnCodec's codes and the CQT."""
    codes, spectra = {CODES: (CODEBOOKS, ENTRIES)}, {SPECTRUM: CQT_BINS}
    return Heads(shape.hidden_size, codes, spectra, shape.final_dim, TEMPERATURE, seed)


def target_set() -> TargetSet:
    """Return the published targets: codes, which each batch brings, and the CQT of the crop."""
    store: Any = SimpleNamespace(kind=Codes(CODEBOOKS, ENTRIES))  # nothing is read from it
    wanted = {CODES: "stored", SPECTRUM: "crop"}
    terms: Any = [SimpleNamespace(teacher=name, targets=targets, weight=1.0) for name, targets in wanted.items()]
    return TargetSet(terms, {CODES: store}, {SPECTRUM: ConstantQTeacher()})


def batch(shape: MertConfig, clips: int, seconds: float, seed: int = 0) -> Batch:
    """Return a batch of harmonic tones in noise, with random codes and the published masks."""
    samples = round(seconds * SAMPLE_RATE)
    frames = shape.frames(samples)
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / SAMPLE_RATE
    pitch = 110 * 2 ** (torch.rand(clips, 1, generator=generator) * 3)
    clean = sum(0.1 / k * torch.sin(2 * torch.pi * k * pitch * time) for k in range(1, 8))
    assert isinstance(clean, Tensor)
    noisy = clean + 0.02 * torch.randn(clips, samples, generator=generator)
    codes = torch.randint(0, ENTRIES, (clips, frames, CODEBOOKS), generator=generator)
    masks = span_masks([np.random.default_rng((seed, clip)) for clip in range(clips)], frames, 0.8, 5)
    ids = {CODES: tuple(range(CODEBOOKS))}
    return Batch(noisy, clean, torch.from_numpy(masks), int(masks.sum()), ids, {CODES: codes})


def optimizer(module: nn.Module) -> torch.optim.AdamW:
    """Return the published recipe's AdamW."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, fused=True)
