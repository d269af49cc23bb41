from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_up import write_line

from mert_core.config import Config, load_config
from mert_core.paths import Layout

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(PARAMS, ["report.runs=[tiny]", "report.teachers=[rvqvae]"])


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return write_line(tmp_path_factory.mktemp("line"))
