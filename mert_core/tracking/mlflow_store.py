"""Where MLflow lies, how to reach it, and how an event is sent; MLflow is imported here alone, when a run opens."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient

    from mert_core.config import Config

Event = dict[str, Any]

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

# Limits of one `log_batch` call and of stored strings (mlflow.utils.validation).
_METRICS_PER_BATCH, _NAMES_PER_BATCH = 1000, 100
_LONGEST = {"params": 6000, "tags": 8000}
_DIGEST_LENGTH = 36  # MLflow's column; the whole record id is in the run's tags
_COLUMN_TYPES = {"int32": "integer", "int64": "long", "float": "float", "double": "double", "bool": "boolean"}


@dataclass(frozen=True)
class MlflowStore:
    """A reachable MLflow: address, client and the experiment's id. Its methods raise one of `tracking_errors`."""

    uri: str
    client: MlflowClient
    experiment_id: str

    def create_run(self, name: str, tags: dict[str, str], start_milliseconds: int | None = None) -> str:
        """Begin a run and return its id."""
        created = self.client.create_run(self.experiment_id, start_time=start_milliseconds, tags=tags, run_name=name)
        return str(created.info.run_id)

    def send(self, run_id: str, events: Sequence[Event]) -> None:
        """Send events of a run, neighbouring metrics in one call: 22–60 ms for one point, 160 ms for 1,000.

        Sending an event a second time changes nothing: the database keeps one of two equal points.
        """
        from mlflow.entities import Metric, Param, RunTag

        for kind, group in groupby(events, key=lambda event: event["kind"]):
            if kind == "metrics":
                points = [point for event in group for point in event["points"]]
                metrics = [Metric(name, float(value), milliseconds, step) for name, value, milliseconds, step in points]
                for batch in _batches(metrics, _METRICS_PER_BATCH):
                    self.client.log_batch(run_id, metrics=batch)
                continue
            for event in group:
                if kind in _LONGEST:
                    entity = Param if kind == "params" else RunTag
                    values = [entity(plain_name(key), text[: _LONGEST[kind]]) for key, text in event["values"].items()]
                    for batch in _batches(values, _NAMES_PER_BATCH):
                        labels: dict[str, Any] = {kind: batch}
                        self.client.log_batch(run_id, **labels)
                elif kind == "artifact":
                    path, folder = event["path"], event["folder"]
                    if Path(path).is_dir():
                        self.client.log_artifacts(run_id, path, folder)
                    elif Path(path).exists():  # its owner may have cleared the state folder
                        self.client.log_artifact(run_id, path, folder or None)
                elif kind == "music":
                    if dataset := _manifest_dataset(event["role"], Path(event["path"]), event["record"]):
                        self.client.log_inputs(run_id, [dataset])
                else:
                    self.client.set_terminated(run_id, status=event["status"], end_time=event["milliseconds"])


def plain_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and ``_ - . : / space``."""
    return re.sub(r"[^\w\-.:/ ]", "_", name)[:250]


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _manifest_dataset(role: str, folder: Path, record: str) -> DatasetInput | None:
    """Return a music folder's manifest as MLflow's data set, or None where the folder holds another record by now."""
    try:
        if read_record(folder).id != record:
            return None
    except MertError:
        return None
    import pyarrow.parquet as parquet
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = folder / "manifest.parquet"
    opened = parquet.ParquetFile(manifest)
    columns = [
        {"name": field.name, "type": _COLUMN_TYPES.get(str(field.type), "string"), "required": not field.nullable}
        for field in opened.schema_arrow
    ]
    profile = {"num_rows": opened.metadata.num_rows, "num_elements": opened.metadata.num_rows * len(columns)}
    dataset = Dataset(
        name=role,
        digest=record[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(manifest)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", role)])


def tracking_uri(config: Config, layout: Layout) -> str:
    """Return the absolute tracking URI: ``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else SQLite in the state.

    Raises:
        MertError: the URI is of a kind that MLflow 3 does not keep runs in.
    """
    chosen = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not chosen:
        return f"sqlite:///{_database(layout)}"
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


def _database(layout: Layout) -> Path:
    return layout.state / "mlflow" / "mlflow.db"


def artifacts_uri(layout: Layout) -> str:
    """Return where runs of a database keep their files; a database keeps none itself."""
    return (layout.state / "mlflow" / "artifacts").as_uri()


def tracking_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when its store is away, broken or refuses a value."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, OSError)


UNKNOWN_RUN = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's error code for a run that was deleted, or whose database was."""
REFUSED = (UNKNOWN_RUN, "INVALID_PARAMETER_VALUE")
"""Error codes by which MLflow was there and found the value wrong: sending it again would not help.

BAD_REQUEST is not among them: MLflow's database store also gives it to a broken database.
"""


def connect(config: Config, layout: Layout) -> MlflowStore:
    """Reach MLflow and make the experiment where it is missing.

    Raises:
        MertError: the URI is no tracking URI.
        Exception: one of ``tracking_errors()`` when the store cannot be reached.
    """
    uri = tracking_uri(config, layout)
    for name, value in QUIET_ENVIRONMENT.items():  # unless the user has chosen otherwise; holds in child processes, too
        os.environ.setdefault(name, value)
    if uri.startswith("sqlite:"):
        Path(uri.partition(":///")[2]).parent.mkdir(parents=True, exist_ok=True)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    name = config.tracking.experiment
    known: Any = client.get_experiment_by_name(name)
    if known is None:
        # Without a place of its own an experiment of a database writes into the current directory.
        place = None if uri.startswith(("http", "databricks")) else artifacts_uri(layout)
        try:
            client.create_experiment(name, artifact_location=place, tags=_KIND)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
        known = client.get_experiment_by_name(name)
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    for key, value in _KIND.items():
        if known.tags.get(key) != value:  # made by hand or by an earlier version
            client.set_experiment_tag(known.experiment_id, key, value)
    move_artifacts(layout)
    return MlflowStore(uri, client, str(known.experiment_id))


def move_artifacts(layout: Layout) -> None:
    """Let the state's own database name the files that lie beside it.

    MLflow stores absolute paths: in a copied or moved checkout they lead to the original, and runs would write there.
    """
    database, here = _database(layout), artifacts_uri(layout)
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs"} <= tables:
            return
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            uris = [uri or "" for (uri,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}")]
            old = {match.group(1) for uri in uris if (match := re.match(r"(file:.*/mlflow/artifacts)(/|$)", uri))}
            for place in old - {here}:
                change = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?"
                connection.execute(change, (here, len(place) + 1, place, place + "/%"))
