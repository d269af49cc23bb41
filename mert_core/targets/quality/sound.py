"""The gate over audio: is the music what the manifest says, at its true rate, and is there any?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.targets.quality.table import SHOWN_TRACKS, Check, Ids, name, of_tracks

if TYPE_CHECKING:
    from mert_core.config import GateConfig

SILENT_TRACK = 0.95
"""A track with a larger share of silent frames counts as silent."""


def check_rate(ids: Ids, samples: NDArray[np.int64], seconds: NDArray[np.float64]) -> list[Check]:
    """Check that every track has 24,000 samples for each of its seconds."""
    rates = samples / np.maximum(seconds, 1e-9)
    off = np.abs(rates - SAMPLE_RATE)
    bad = np.flatnonzero(off * seconds > 1.0)  # by more than one sample over the whole track
    advice = (
        "its seconds and its samples belong to different rates, so all its frames would be in the wrong place; remake "
        "the corpus with `mert corpus`"
    )
    worst = rates[int(off.argmax())] if len(rates) else SAMPLE_RATE
    return of_tracks("samples per second", ids, bad, rates, worst, f"{SAMPLE_RATE}", advice)


def check_content(ids: Ids, same_audio: NDArray[np.bool_]) -> list[Check]:
    """Check that the samples that were labelled are those whose hash the manifest has."""
    advice = (
        "the manifest points at other audio than it was written for; restore both with `dvc checkout data/corpus`, or "
        "remake them with `mert corpus`"
    )
    return of_tracks("audio is not the manifest's", ids, np.flatnonzero(~same_audio), ~same_audio, 0, "0", advice)


def check_bandwidth(
    ids: Ids, wall_hertz: NDArray[np.float32], source_rates: NDArray[np.int64], limits: GateConfig
) -> list[Check]:
    """Check that few tracks end in a wall far below half the rate that their source claims: those were upsampled.

    Args:
        ids: of the tracks.
        wall_hertz: (tracks,) where the spectrum ends in a wall; 0: it does not.
        source_rates: (tracks,) in hertz.
        limits: thresholds.
    """
    reach = np.minimum(source_rates, SAMPLE_RATE) / 2
    share = np.where(wall_hertz > 0, wall_hertz / reach, 1.0)
    bad = np.flatnonzero(share < limits.min_bandwidth)
    upsampled = len(bad) / max(len(share), 1)
    passed = upsampled <= limits.max_upsampled
    checks = [
        Check(
            "upsampled tracks",
            f"{len(share)} tracks",
            upsampled,
            f"<= {limits.max_upsampled:g}",
            passed,
            "their files claim a higher rate than the music in them has: find the originals, or leave them out of the "
            "corpus",
        )
    ]
    if not passed:
        checks += [
            Check(
                "bandwidth",
                f"track {name(ids, row)}",
                float(share[row]),
                f">= {limits.min_bandwidth:g}",
                False,
                f"its spectrum ends in a wall at {wall_hertz[row]:,.0f} Hz, as if resampled from "
                f"{_rate(wall_hertz[row]):,} Hz, but its source claims {source_rates[row]:,} Hz; find the original",
            )
            for row in bad[:SHOWN_TRACKS]
        ]
    return checks


def _rate(wall: float) -> int:
    """Return the lowest usual sample rate that reaches a frequency."""
    return next((rate for rate in (8000, 11025, 12000, 16000, 22050) if rate / 2 * 1.02 >= wall), SAMPLE_RATE)


def check_silence(ids: Ids, silent: NDArray[np.int64], frames: NDArray[np.int64], limits: GateConfig) -> list[Check]:
    """Check how much of the music is silent, and how many tracks are hardly anything else.

    Args:
        ids: of the tracks.
        silent: (tracks,) silent frames.
        frames: (tracks,).
        limits: thresholds.
    """
    whole = float(silent.sum() / max(int(frames.sum()), 1))
    share = silent / np.maximum(frames, 1)
    bad = np.flatnonzero(share > SILENT_TRACK)
    tracks = len(bad) / max(len(share), 1)
    few = tracks <= limits.max_silent_tracks
    checks = [
        Check(
            "silence",
            "all tracks",
            whole,
            f"<= {limits.max_silence:g}",
            whole <= limits.max_silence,
            "a student learns little from silence and its one code: trim or leave out the quietest tracks",
        ),
        Check(
            "silent tracks",
            f"{len(share)} tracks",
            tracks,
            f"<= {limits.max_silent_tracks:g}",
            few,
            "leave them out of the corpus",
        ),
    ]
    if not few:
        advice = "listen to its source; a wrong channel, a failed recording? Leave it out of the corpus"
        checks += of_tracks("silence", ids, bad, share, 0, f"<= {SILENT_TRACK:g}", advice)
    return checks
