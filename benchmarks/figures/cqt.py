"""The constant-Q transform: ours against nnAudio on clips and against librosa on a song."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.comparators.cqt import librosa_cqt, nnaudio
from benchmarks.music import melodies
from benchmarks.row import Row, Tell, time_of
from benchmarks.timing import paired
from mert_core.features.cqt import ConstantQ

CLIPS, CLIP_SECONDS, SONG_SECONDS = 8, 5.0, 30.0
TARGETS = {"nnAudio": 40.0, "librosa": 5.0}
MOST_DIFFERENCE = 2e-3


def difference(clips: Tensor) -> float:
    """Return the relative L2 difference of ours to nnAudio on clips (batch, samples).

    Raises:
        AssertionError: it is above 2e-3, so that the two do not compute the same.
    """
    with torch.no_grad():
        expected = nnaudio()(clips).transpose(1, 2)
    found = ((ConstantQ()(clips) - expected).norm() / expected.norm()).item()
    if found > MOST_DIFFERENCE:
        raise AssertionError(f"the transforms differ by {found:.2g} of nnAudio's norm; expected {MOST_DIFFERENCE:g}")
    return found


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure against both, all threads on either side."""
    clips, song = melodies(CLIPS, CLIP_SECONDS), melodies(1, SONG_SECONDS)
    tell(f"ours differs from nnAudio by {difference(clips):.1e} (relative L2)")
    ours, other = ConstantQ(), torch.no_grad()(nnaudio())
    against_nnaudio = paired(partial(ours, clips), partial(other, clips), rounds, tell, times=20)
    against_librosa = paired(partial(ours, song), partial(librosa_cqt, song[0].numpy()), 3 * rounds, tell, times=5)
    figures = (
        f"constant-Q transform of {CLIPS} clips of {CLIP_SECONDS:g} s against nnAudio, fp32",
        f"constant-Q transform of a song of {SONG_SECONDS:g} s against librosa",
    )
    return [
        Row.of_speed(figures[0], TARGETS["nnAudio"], against_nnaudio, time_of),
        Row.of_speed(figures[1], TARGETS["librosa"], against_librosa, time_of),
    ]
