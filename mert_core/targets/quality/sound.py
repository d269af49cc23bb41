"""Checks over audio: is the music what the manifest says, at its true rate, and is there any?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.targets.quality.table import SHOWN_TRACKS, Check, track_checks, track_id

if TYPE_CHECKING:
    from mert_core.config import GateConfig

SILENT_TRACK = 0.95
"""A track with a larger share of silent frames counts as silent."""


def check_rate(tracks: pa.Table) -> list[Check]:
    """Check that every track has 24,000 samples for each of its seconds."""
    samples, seconds = tracks["samples"].to_numpy(), tracks["seconds"].to_numpy()
    rates = samples / np.maximum(seconds, 1e-9)
    off = np.abs(rates - SAMPLE_RATE)
    bad = np.flatnonzero(off * seconds > 1.0)  # by more than one sample over the whole track
    advice = (
        "its seconds and its samples belong to different rates, so all its frames would be in the wrong place; remake "
        "the corpus with `mert corpus`"
    )
    worst = rates[int(off.argmax())] if len(rates) else SAMPLE_RATE
    return track_checks("samples per second", tracks, bad, rates, worst, f"{SAMPLE_RATE}", advice)


def check_content(tracks: pa.Table) -> list[Check]:
    """Check that the samples that were labeled are those whose hash the manifest has."""
    other = ~tracks["same_audio"].to_numpy()
    advice = (
        "the manifest points at other audio than it was written for; restore both with `dvc checkout data/corpus`, or "
        "remake them with `mert corpus`"
    )
    return track_checks("audio is not the manifest's", tracks, np.flatnonzero(other), other, 0, "0", advice)


def check_bandwidth(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check that few tracks end in a wall far below half the rate that their source claims: those were upsampled."""
    wall_hertz, source_rates = tracks["wall_hertz"].to_numpy(), tracks["source_rate"].to_numpy()
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
                f"track {track_id(tracks, row)}",
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


def check_silence(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check how much of the music is silent, and how many tracks are hardly anything else."""
    silent, frames = tracks["silent_frames"].to_numpy(), tracks["frames"].to_numpy()
    whole = float(silent.sum() / max(int(frames.sum()), 1))
    share = silent / np.maximum(frames, 1)
    bad = np.flatnonzero(share > SILENT_TRACK)
    silent_tracks = len(bad) / max(len(share), 1)
    few = silent_tracks <= limits.max_silent_tracks
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
            silent_tracks,
            f"<= {limits.max_silent_tracks:g}",
            few,
            "leave them out of the corpus",
        ),
    ]
    if not few:
        advice = "listen to its source; a wrong channel, a failed recording? Leave it out of the corpus"
        checks += track_checks("silence", tracks, bad, share, 0, f"<= {SILENT_TRACK:g}", advice)
    return checks
