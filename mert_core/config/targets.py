"""Targets: who labels the corpus, and the thresholds of the label gate."""

from __future__ import annotations

from typing import Literal

from mert_core.config.section import NonNegative, Positive, Section, Share, Whole


class GateConfig(Section):
    """Thresholds of the gate, which stops the pipeline on bad labels or music before compute is spent.

    Attributes:
        min_usage: least share of a codebook's entries in use on the training split.
        min_entropy_bits: least entropy of a codebook's entries.
        max_top_share: largest share of the commonest entry.
        max_dead_bins: largest share of a spectrum's bins that do not vary on the training split.
        max_magnitude: largest value of a spectrum, of either sign.
        max_drift_frames: a track's frames against 75 per second.
        min_bandwidth: a track whose spectrum ends in a wall below this share of half its source's rate was upsampled:
            music of 8 kHz has 0.32, of 11 kHz 0.44, mp3 of 24 kbit/s 0.51, music from 16 kHz, left alone, 0.65.
        max_upsampled: largest share of such tracks.
        max_silence: largest share of frames below −60 dB, in all tracks.
        max_silent_tracks: largest share of tracks with more than 95 % of such frames.
        max_alike: largest share of held-out tracks that the training split has in another encoding, or shifted.
        shared_artists: whether an artist may be in two splits; the demo's artists are composers, whom one synthesizer
            plays.
    """

    min_usage: Share = 0.3
    min_entropy_bits: NonNegative = 3.0
    max_top_share: Share = 0.5
    max_dead_bins: Share = 0.0
    max_magnitude: Positive = 1000.0
    max_drift_frames: NonNegative = 1.0
    min_bandwidth: Share = 0.45
    max_upsampled: Share = 0.05
    max_silence: Share = 0.5
    max_silent_tracks: Share = 0.01
    max_alike: Share = 0.01
    shared_artists: Literal["allow", "stop"] = "allow"


class TargetsConfig(Section):
    """Labelling the corpus.

    Attributes:
        actors: Ray actors, each with a copy of the teacher and one thread, where there is so much music that starting
            Ray pays; else, and with 0, threads of the stage's process. The bytes are the same.
        gate: thresholds of the label gate.
    """

    actors: Whole = 2
    gate: GateConfig = GateConfig()
