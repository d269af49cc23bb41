"""The music a run has seen, as MLflow data sets: the manifest with the record id as its digest."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.data.record import read_record
from mert_core.errors import MertError

if TYPE_CHECKING:
    from mert_core.tracking.buffer import RunTracker

MUSIC = ("corpus", "probe_set")
_EXAMPLES = 100  # tracks
DIGEST_LENGTH = 36  # MLflow's column; the whole id is in the run's tags


def log_music(tracker: RunTracker, folders: Mapping[str, Path]) -> None:
    """Log the manifest of every music folder among ``folders`` (role to path) as a data set of the run.

    A folder that is not there yet is left out: the stage itself says what is missing.
    """
    for role in MUSIC:
        if role in folders and (folders[role] / "manifest.parquet").exists():
            _log_manifest(tracker, role, folders[role])


def _log_manifest(tracker: RunTracker, role: str, folder: Path) -> None:
    if tracker.store is None or tracker.run_id is None:
        return
    try:
        record = read_record(folder)
    except MertError:  # half a folder; the stage itself says so
        return
    import pyarrow.parquet as parquet
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from mert_core.tracking.store import tracking_errors

    manifest = folder / "manifest.parquet"
    opened = parquet.ParquetFile(manifest)
    tracks, columns = opened.metadata.num_rows, opened.metadata.num_columns
    frame = next(opened.iter_batches(_EXAMPLES)).to_pandas()  # its schema is all that MLflow wants of a million tracks
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The specified dataset source can be interpreted in multiple ways")
        # A hint for models that are served; a manifest's counts are whole numbers and none is missing.
        warnings.filterwarnings("ignore", r"Hint: Inferred schema contains integer column\(s\)")
        dataset = from_pandas(frame, source=str(manifest), name=role, digest=record.id[:DIGEST_LENGTH])
        entity = dataset._to_mlflow_entity()  # infers the schema
    entity = Dataset(
        entity.name,
        entity.digest,
        entity.source_type,
        entity.source,
        entity.schema,
        json.dumps({"num_rows": tracks, "num_elements": tracks * columns}),
    )
    entry = DatasetInput(entity, [InputTag("mlflow.data.context", role)])
    try:
        tracker.store.client.log_inputs(tracker.run_id, [entry])
    except tracking_errors() as error:
        tracker.lost(error)
