from __future__ import annotations

import os
from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.parallel import PASSIVE

os.environ.update(PASSIVE)  # before a test's module imports torch: tests run side by side

REPOSITORY = Path(__file__).resolve().parent.parent
# `make test` gives whole files to its workers. Those that take minutes come first, so that no worker waits for another
# that has taken one of them last.
LONGEST_FIRST = (
    "e2e/test_pipeline.py",
    "integration/test_ray_train.py",
    "integration/test_up.py",
    "integration/test_prefect.py",
    "training/test_checkpoint.py",
    "training/test_distributed.py",
    "integration/test_sweep.py",
    "training/test_health.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and leave the rest as it is."""
    place = {REPOSITORY / "tests" / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that holds these tests."""
    return REPOSITORY


@pytest.fixture
def config(repository: Path) -> Config:
    """The committed parameters."""
    return load_config(repository / "params.yaml")
