"""F-measure of beats, by `mir_eval.beat`."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"f_measure": 0.07, "f_measure_20ms": 0.02}
"""Metric → seconds by which a beat may be off."""
TRIM_SECONDS = 5.0
TRIMMED_FROM_SECONDS = 15.0


def trim_seconds_of(clip_seconds: float) -> float:
    """Return how much of a clip's start is not scored: mir_eval's (and MARBLE's) 5 s; nothing of clips under 15 s.

    In a demo clip of 10 s the first 5 s are half of what there is to score, and nobody's tempo estimate needs them.
    """
    return TRIM_SECONDS if clip_seconds >= TRIMMED_FROM_SECONDS else 0.0


def f_measures(
    truth: NDArray[np.float64], found: NDArray[np.float64], trim_seconds: float = TRIM_SECONDS
) -> dict[str, float]:
    """Return the F-measure at each of `TOLERANCES` of one clip's beats; 0 where either has no beat to score.

    Args:
        truth: seconds of the beats, rising.
        found: the same, of the estimate.
        trim_seconds: beats before this are not scored, in neither.
    """
    from mir_eval import beat

    kept = [beat.trim_beats(np.asarray(beats, dtype=np.float64), trim_seconds) for beats in (truth, found)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* beats are empty")
        return {name: float(beat.f_measure(*kept, tolerance)) for name, tolerance in TOLERANCES.items()}
