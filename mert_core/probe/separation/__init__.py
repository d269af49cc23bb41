"""Separation of a mixture into stems by Open-Unmix-style heads on frozen features."""

from __future__ import annotations

from mert_core.probe.separation.augment import RemixSound, draw_remixes, windows_of_track
from mert_core.probe.separation.excerpts import Excerpt, Excerpts
from mert_core.probe.separation.head import Heads, HeadShape
from mert_core.probe.separation.sdr import global_sdr, museval_sdr
from mert_core.probe.separation.separate import TrackFeatures, separated, track_ratios
from mert_core.probe.separation.stems import StoredTrack, store_tracks
from mert_core.probe.separation.training import Network, SeparationRecipe, TrainedNetworks, train_networks

__all__ = [
    "Excerpt",
    "Excerpts",
    "HeadShape",
    "Heads",
    "Network",
    "RemixSound",
    "SeparationRecipe",
    "StoredTrack",
    "TrackFeatures",
    "TrainedNetworks",
    "draw_remixes",
    "global_sdr",
    "museval_sdr",
    "separated",
    "store_tracks",
    "track_ratios",
    "train_networks",
    "windows_of_track",
]
