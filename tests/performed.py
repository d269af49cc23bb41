"""A few small pieces, parsed once for all tests of performed scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.data.track import SourceTrack
from mert_core.synth.generate import perform_probe_set
from mert_core.synth.library import Library, load_library

_PARAMS = Path(__file__).parents[1] / "params.yaml"
COMPOSERS = ["bach", "ryan"]


@pytest.fixture(scope="session")
def scores_config() -> Config:
    """The repository's parameters with few pieces, tracks and items."""
    small = [
        "threads=1",
        "pieces.per_composer=4",
        "pieces.train=0.5",
        "pieces.valid=0.25",
        "corpus.scores.minutes=0.5",
        "corpus.scores.track_seconds=3",
        "probe_set.mixes={train: 32, valid: 18, test: 18}",
        "probe_set.notes={train: 18, valid: 2, test: 2}",
        "probe_set.rhythms={train: 4, valid: 1, test: 1}",
        "probe_set.phrases={train: 16, valid: 8, test: 8}",
        "probe_set.stems={train: 2, valid: 1, test: 1}",
        "probe_set.rhythm_seconds=6",
        "probe_set.stem_seconds=4",
    ]
    return load_config(_PARAMS, small)


@pytest.fixture(scope="session")
def scores_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def library(scores_config: Config, scores_cache: Path) -> Library:
    """Four pieces each of two composers."""
    return load_library(scores_config, scores_cache, COMPOSERS)


@pytest.fixture(scope="session")
def items(scores_config: Config, scores_cache: Path, library: Library) -> list[SourceTrack]:
    """All tracks of a small probe set."""
    return list(perform_probe_set(scores_config, scores_cache, library))
