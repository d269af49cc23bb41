"""Beats: targets per frame, the tempo model that turns a probe's output into beats, and their score."""

from __future__ import annotations

from mert_core.probe.beats.decoder import decode
from mert_core.probe.beats.labels import frame_targets
from mert_core.probe.beats.scores import f_measures, trim_seconds_of
from mert_core.probe.beats.tempo_model import TempoModel

__all__ = ["TempoModel", "decode", "f_measures", "frame_targets", "trim_seconds_of"]
