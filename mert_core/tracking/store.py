"""Where MLflow lies and how to reach it. MLflow is imported here alone, and only when a run is opened."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mert_core.errors import MertError
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mert_core.config import Config

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
# MLflow's own: 7 retries with growing pauses and 120 s each. A stage must not stand still that long for its log.
QUIET_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

# The page then opens on the runs of trained models, not on the traces of agents.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class MlflowStore:
    """A reachable MLflow: address, client and the experiment's id."""

    uri: str
    client: MlflowClient
    experiment_id: str


def tracking_uri(config: Config, layout: Layout) -> str:
    """Return the absolute tracking URI: ``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else SQLite in the state.

    Raises:
        MertError: the URI is of a kind that MLflow 3 does not keep runs in.
    """
    chosen = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not chosen:
        return f"sqlite:///{_store_folder(layout) / 'mlflow.db'}"
    scheme = urlsplit(chosen).scheme.partition("+")[0]
    if scheme not in SCHEMES:
        where = "tracking.uri" if config.tracking.uri else "MLFLOW_TRACKING_URI"
        raise MertError(
            f"{where} is {chosen!r}; expected a server (http://127.0.0.1:5000) or a database (sqlite:////absolute/mlflow.db)"
        )
    if scheme == "sqlite":
        prefix, _, path = chosen.partition(":///")
        return f"{prefix}:///{(layout.root / path).resolve()}"  # an absolute path stays what it is
    return chosen


def tracking_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when its store is away, broken or refuses a value."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, OSError)


def connect(config: Config, layout: Layout) -> MlflowStore:
    """Reach MLflow and make the experiment where it is missing.

    Raises:
        MertError: the URI is no tracking URI.
        Exception: one of ``tracking_errors()`` when the store cannot be reached.
    """
    uri = tracking_uri(config, layout)
    quiet_environment()
    if uri.startswith("sqlite:"):
        Path(uri.partition(":///")[2]).parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    return MlflowStore(uri, client, _experiment(client, config.tracking.experiment, layout, uri))


def quiet_environment() -> None:
    """Turn off telemetry and long waits, unless the user has chosen otherwise; also holds in child processes."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _store_folder(layout: Layout) -> Path:
    return layout.state / "mlflow"


def _experiment(client: MlflowClient, name: str, layout: Layout, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found: Any = client.get_experiment_by_name(name)
    if found is None:
        # A database keeps no files: give it an absolute place, or artifacts land in the current directory.
        place = None if uri.startswith(("http", "databricks")) else (_store_folder(layout) / "artifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=_KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
