from __future__ import annotations

import pytest

from mert_core.config import Config, load_config
from mert_core.paths import Layout
from tests.report.made_up import PARAMS, write_pipeline


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(PARAMS, ["report.runs=[tiny]", "report.teachers=[rvqvae]"])


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))
