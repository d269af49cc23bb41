from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.config import Config, load_config

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that holds these tests."""
    return REPOSITORY


@pytest.fixture
def config(repository: Path) -> Config:
    """The committed parameters."""
    return load_config(repository / "params.yaml")
