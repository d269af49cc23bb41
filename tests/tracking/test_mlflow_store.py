from __future__ import annotations

import shutil

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.tracking import open_run
from mert_core.tracking.mlflow_store import artifacts_uri, connect
from tests.tracking.conftest import client_of, logged


def test_a_copied_checkout_reads_and_writes_its_own_files(config: Config, layout: Layout) -> None:
    note = layout.root / "note.md"
    note.write_text("hello")
    with open_run(config, layout, "teachers") as tracker:
        tracker.artifact(note)
    copy = Layout.at(layout.root.with_name("copy"))
    shutil.copytree(layout.root, copy.root)
    with open_run(config, copy, "teachers") as later:
        later.artifact(note)
    assert logged(copy, later).info.artifact_uri.startswith(artifacts_uri(copy))
    shutil.rmtree(layout.root)
    for run_id in (str(tracker.run_id), str(later.run_id)):
        assert [item.path for item in client_of(copy).list_artifacts(run_id)] == ["note.md"]


def test_the_page_opens_in_the_training_view(config: Config, layout: Layout) -> None:
    made_by_hand = client_of(layout).create_experiment(config.tracking.experiment)
    assert connect(config, layout).experiment_id == made_by_hand
    tags = client_of(layout).get_experiment(made_by_hand).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
