"""Sections about targets: the store and the label gate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mert_core.config.section import NonNegative, Positive, Section, Share


class GateConfig(Section):
    """Thresholds of the gate over labels, audio and manifest."""

    min_usage: Share
    min_entropy_bits: NonNegative
    max_top_share: Share
    max_dead_bins: Share
    max_magnitude: Positive
    max_drift_frames: NonNegative
    min_bandwidth: Share
    max_upsampled: Share
    max_silence: Share
    max_silent_tracks: Share
    max_alike: Share
    shared_artists: Literal["allow", "stop"]


class TargetsConfig(Section):
    """Target store and label gate."""

    actors: Annotated[int, Field(ge=0)]
    gate: GateConfig
