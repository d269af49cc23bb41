"""Chroma over beats."""

from __future__ import annotations

from itertools import pairwise

import torch

from mert_core.features.beat_tracking import beat_frames, onset_strength
from mert_core.teachers.spectra import BeatChromaTeacher, ChromaTeacher
from tests.teachers.conftest import tracks


def test_a_frames_target_is_the_mean_over_its_beat() -> None:
    teacher, track = BeatChromaTeacher().freeze(), tracks()[2][None]
    found, plain = teacher(track)[0], ChromaTeacher()(track)[0]
    mel = teacher.log_mel(track)[:, : len(plain)]
    beats = [0, *beat_frames(onset_strength(mel)[0].numpy()).tolist(), len(plain)]
    assert len(beats) > 10
    for first, last in pairwise(beats):
        if last > first:
            expected = plain[first:last].mean(0).expand(last - first, -1)
            assert torch.allclose(found[first:last], expected, atol=1e-5)
