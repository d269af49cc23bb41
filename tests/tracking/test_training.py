"""Training does not notice that MLflow is away, and nothing that it said is lost."""

from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.tracking import open_run
from mert_core.tracking.outbox import Outbox, _read
from mert_core.training.callbacks import BarObserver
from mert_core.training.run import work
from mert_core.training.worker import Worker
from tests.tracking.test_facade import client_of, write_corpus
from tests.training.music import job, params


def test_a_training_without_mlflow_is_sent_later(
    config: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with open_run(config, layout, "pretrain", "tiny") as tracker, BarObserver(tracker, "tiny", 3) as observer:
        facts = work(job(params(log_every=1, max_steps=3)), Worker(), observer)
    assert facts["steps"] == 3
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with open_run(config, layout, "targets", "rvqvae"):
        pass
    client: MlflowClient = client_of(layout)
    (run,) = client.search_runs(["1"], "tags.`mert.stage` = 'pretrain'")
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2, 3]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["health/effective_rank"] > 2


def test_an_outbox_on_a_full_disk_says_so_and_keeps_what_it_can(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = Outbox(layout, "pretrain/tiny", {}, None)
    real = outbox.path
    outbox.add({"kind": "tags", "values": {"before": "1"}})
    with real.open("a") as stream:
        stream.write('{"kind": "tags", "val')  # what a disk took before it was full
    outbox.path = Path("/dev/full")  # every write to it fails with ENOSPC
    outbox.add({"kind": "tags", "values": {"lost": "1"}})
    outbox.add({"kind": "tags", "values": {"lost": "2"}})
    told = capsys.readouterr().err
    assert told.count("takes no more events") == 1
    assert f"[Errno {errno.ENOSPC}]" in told
    outbox.path = real
    outbox.add({"kind": "tags", "values": {"after": "1"}})
    assert [event["values"] for event in _read(real)[1:]] == [{"before": "1"}, {"after": "1"}]


def test_a_manifest_is_logged_without_a_hint_about_its_integers(config: Config, layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    write_corpus(layout)
    manifest = layout.corpus / "manifest.parquet"
    parquet.write_table(pa.table({"track_id": ["a", "b"], "samples": [72000, 96000]}), manifest)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with open_run(config, layout, "teachers") as tracker:
            pass
    run = client_of(layout).get_run(str(tracker.run_id))
    schema = json.loads(run.inputs.dataset_inputs[0].dataset.schema)
    assert [column["type"] for column in schema["mlflow_colspec"]] == ["string", "long"]
