from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as parquet

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.tracking import open_run
from mert_core.tracking.mlflow_store import artifacts_uri, connect
from tests.tracking.test_run import client_of, write_corpus


def test_a_copied_checkout_reads_and_writes_its_own_files(config: Config, layout: Layout) -> None:
    note = layout.root / "note.md"
    note.write_text("hello")
    with open_run(config, layout, "teachers") as tracker:
        tracker.artifact(note)
    copy = Layout.at(layout.root.with_name("copy"))
    shutil.copytree(layout.root, copy.root)
    with open_run(config, copy, "teachers") as later:
        later.artifact(note)
    assert client_of(copy).get_run(str(later.run_id)).info.artifact_uri.startswith(artifacts_uri(copy))
    shutil.rmtree(layout.root)
    for run_id in (str(tracker.run_id), str(later.run_id)):
        assert [item.path for item in client_of(copy).list_artifacts(run_id)] == ["note.md"]


def test_the_page_opens_in_the_training_view(config: Config, layout: Layout) -> None:
    made_by_hand = client_of(layout).create_experiment(config.tracking.experiment)
    assert connect(config, layout).experiment_id == made_by_hand
    tags = client_of(layout).get_experiment(made_by_hand).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_manifest_is_logged_with_its_columns_and_size(config: Config, layout: Layout) -> None:
    corpus = write_corpus(layout)
    table = pa.table({"track_id": ["a", "b", "c"], "samples": [72000, 96000, 8], "clean": [True, False, True]})
    parquet.write_table(table, layout.corpus / "manifest.parquet")
    with open_run(config, layout, "teachers") as tracker:
        pass
    run = client_of(layout).get_run(str(tracker.run_id))
    (logged,) = (item.dataset for item in run.inputs.dataset_inputs)
    assert [column["type"] for column in json.loads(logged.schema)["mlflow_colspec"]] == ["string", "long", "boolean"]
    assert (logged.name, logged.digest, json.loads(logged.profile)["num_rows"]) == ("corpus", corpus.id[:36], 3)
