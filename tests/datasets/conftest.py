import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.datasets.miniatures import WRITERS
from tests.performed import items, library, scores_cache, scores_config

__all__ = ["items", "library", "scores_cache", "scores_config"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The miniature of a set by its name, written once for all tests: read it only."""
    return cache(lambda name: WRITERS[name](tmp_path_factory.mktemp(name)))


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A miniature of a set by its name, to be changed."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / name))
