"""The frame grid."""

from __future__ import annotations

import torch

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, RECEPTIVE_SAMPLES, SAMPLE_RATE, student_frames, whole_hops
from mert_core.model.config import PRESETS

FRAMES = {0: 0, 399: 0, 400: 1, 719: 1, 720: 2, 24000: 74, 120000: 374, 122880: 383, 720000: 2249}


def test_frames_are_those_of_huberts_convolutions() -> None:
    assert {samples: student_frames(samples) for samples in FRAMES} == FRAMES
    assert {samples: PRESETS["mert-95m"].frames(samples) for samples in FRAMES} == FRAMES
    for samples in [*range(400, 1100, 7), 24000]:
        wave = torch.zeros(1, 1, samples)
        for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
            wave = torch.nn.functional.conv1d(wave, torch.ones(1, 1, kernel), stride=stride)
        assert student_frames(samples) == wave.shape[-1]


def test_rates_agree() -> None:
    assert FRAME_RATE * HOP_SAMPLES == SAMPLE_RATE
    assert RECEPTIVE_SAMPLES > HOP_SAMPLES
    assert (whole_hops(24001), whole_hops(319)) == (24000, 0)
