"""What a run says, as plain JSON events: sent to MLflow at once, or kept in a file and sent later."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Event = dict[str, Any]

# Limits of one `log_batch` call and of stored strings (mlflow.utils.validation).
METRICS_PER_BATCH = 1000
NAMES_PER_BATCH = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000


def plain_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and ``_ - . : / space``."""
    return re.sub(r"[^\w\-.:/ ]", "_", name)[:250]


def apply(client: MlflowClient, run_id: str, event: Event) -> None:
    """Send one event to MLflow.

    Raises:
        Exception: one of ``store.tracking_errors()``.
        ValueError: an event of no known kind.
    """
    kind = event["kind"]
    if kind == "metrics":
        _metrics(client, run_id, event["points"])
    elif kind == "params":
        _params(client, run_id, event["values"])
    elif kind == "tags":
        _tags(client, run_id, event["values"])
    elif kind == "artifact":
        path = Path(event["path"])
        send = client.log_artifacts if path.is_dir() else client.log_artifact
        send(run_id, str(path), event["folder"] or None)
    elif kind == "table":
        client.log_table(run_id, data=event["columns"], artifact_file=f"{event['name']}.json")
    elif kind == "end":
        client.set_terminated(run_id, status=event["status"], end_time=event["milliseconds"])
    else:
        raise ValueError(f"event kind {kind!r} is unknown")


def point(name: str, value: float, milliseconds: int, step: int | None) -> list[Any]:
    """Return one metric point; a value that is not finite travels as text, as JSON has none."""
    number = float(value)
    return [plain_name(name), number if math.isfinite(number) else str(number), milliseconds, step or 0]


def _metrics(client: MlflowClient, run_id: str, points: Iterable[list[Any]]) -> None:
    from mlflow.entities import Metric

    metrics = (Metric(name, float(value), milliseconds, step) for name, value, milliseconds, step in points)
    while batch := list(islice(metrics, METRICS_PER_BATCH)):
        client.log_batch(run_id, metrics=batch)


def _params(client: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    params = (Param(plain_name(key), str(value)[:LONGEST_PARAM]) for key, value in values.items())
    while batch := list(islice(params, NAMES_PER_BATCH)):
        client.log_batch(run_id, params=batch)


def _tags(client: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    tags = (RunTag(plain_name(key), str(value)[:LONGEST_TAG]) for key, value in values.items())
    while batch := list(islice(tags, NAMES_PER_BATCH)):
        client.log_batch(run_id, tags=batch)
