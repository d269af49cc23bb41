from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mert_core.config import GateConfig

IDS = ["anna", "bert", "carl", "dora"]


def tracks(ids: list[str] | None = None, **columns: Any) -> pa.Table:
    """Return a table of tracks with the columns that a check looks at."""
    return pa.table({"track_id": ids or IDS, **columns})


@pytest.fixture
def limits() -> GateConfig:
    """Thresholds for the little data of these tests."""
    return GateConfig(
        min_usage=0.5,
        min_entropy_bits=3.0,
        max_top_share=0.3,
        max_dead_bins=0.0,
        max_magnitude=100.0,
        max_drift_frames=1,
        min_bandwidth=0.45,
        max_upsampled=0.2,
        max_silence=0.5,
        max_silent_tracks=0.2,
        max_alike=0.0,
        shared_artists="stop",
    )
