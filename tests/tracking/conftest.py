from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mert_core.config import Config, load_config
from mert_core.data.record import Record, write_record
from mert_core.paths import Layout
from mert_core.tracking import Tracker
from mert_core.tracking.mlflow_store import QUIET_ENVIRONMENT
from mert_core.tracking.outbox import FOLDER
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(REPOSITORY / "params.yaml")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database: MLflow takes seconds to make its tables, so they are made once and copied."""
    os.environ.update({key: value for key, value in QUIET_ENVIRONMENT.items() if key not in os.environ})
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Layout:
    for name in ("MERT_HOME", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "MERT_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    layout = Layout.at(tmp_path / "work")
    (layout.state / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, layout.state / "mlflow" / "mlflow.db")
    return layout


def client_of(layout: Layout) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{layout.state / 'mlflow' / 'mlflow.db'}")


def logged(layout: Layout, tracker: Tracker) -> Run:
    """Return what MLflow holds of a run."""
    return client_of(layout).get_run(str(tracker.run_id))


def unsent(layout: Layout) -> list[Path]:
    return list((layout.state / FOLDER).iterdir())


def write_corpus(layout: Layout) -> Record:
    layout.corpus.mkdir(parents=True)
    table = pa.table({"track_id": ["a", "b", "c"], "samples": [72000, 96000, 8], "clean": [True, False, True]})
    parquet.write_table(table, layout.corpus / "manifest.parquet")
    return write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={"seed": 1}, facts={"n": 2})
