from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.paths import Layout
from mert_core.tracking.mlflow_store import QUIET_ENVIRONMENT

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(PARAMS)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database: MLflow takes seconds to make its tables, so they are made once and copied."""
    os.environ.update({key: value for key, value in QUIET_ENVIRONMENT.items() if key not in os.environ})
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Iterator[Layout]:
    for name in ("MERT_HOME", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "MERT_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    found = Layout.at(tmp_path / "work")
    folder = found.state / "mlflow"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow.db")
    yield found
