from __future__ import annotations

import errno
import logging
import math
import socket
import time
from pathlib import Path

import pytest

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.tracking import open_run, outbox
from mert_core.tracking.mlflow_store import MlflowStore
from mert_core.tracking.outbox import Outbox, read_events
from mert_core.training.callbacks import BarObserver
from mert_core.training.run import work
from mert_core.training.worker import Worker
from tests.tracking.conftest import client_of, logged, unsent
from tests.training.music import job, params


def test_a_training_without_mlflow_goes_on_and_the_next_run_sends(
    config: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with open_run(config, layout, "pretrain", "tiny") as tracker, BarObserver(tracker, "tiny", 3) as observer:
        facts = work(job(params(log_every=1, max_steps=3)), Worker(), observer)
        tracker.metrics({"gone": math.inf}, step=8)
    assert facts["steps"] == 3
    assert tracker.run_id is None
    assert "MLflow cannot be reached" in caplog.text
    assert len(unsent(layout)) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with open_run(config, layout, "targets", "rvqvae"):
        pass
    assert not unsent(layout)
    client = client_of(layout)
    (run,) = client.search_runs(["1"], "tags.`mert.stage` = 'pretrain'")
    assert (run.info.run_name, run.info.status) == ("pretrain/tiny", "FINISHED")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]
    assert run.data.metrics["health/effective_rank"] > 2
    assert run.data.metrics["gone"] > 1e300


def test_a_store_lost_on_the_way_is_caught_up_as_soon_as_it_is_back(
    config: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "SEND_SECONDS", 0.1)
    database = layout.state / "mlflow" / "mlflow.db"
    with open_run(config, layout, "teachers") as tracker:
        tracker.metrics({"loss": 3.0}, step=1)
        tracker.flush()
        hidden = database.read_bytes()
        database.write_bytes(b"not a database, for a while" * 100)
        tracker.metrics({"loss": 2.0}, step=2)
        tracker.flush()
        tracker.metrics({"loss": 1.0}, step=3)
        time.sleep(0.5)
        assert caplog.text.count("was lost") == 1
        database.write_bytes(hidden)
        deadline = time.monotonic() + 20
        while len(client_of(layout).get_metric_history(str(tracker.run_id), "loss")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    run = logged(layout, tracker)
    assert run.info.status == "FINISHED"
    history = client_of(layout).get_metric_history(run.info.run_id, "loss")
    assert [point.value for point in history] == [3.0, 2.0, 1.0]
    assert not unsent(layout)


def test_a_stage_does_not_wait_for_mlflow(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes every request and answers none
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        box = Outbox(tmp_path, "pretrain/tiny", {}, MlflowStore(address, MlflowClient(address), "1"), "a" * 32)
        began = time.monotonic()
        for step in range(2000):
            box.add({"kind": "metrics", "points": [["loss", 1.0, 1, step]]})
        assert time.monotonic() - began < 2
        assert len(read_events(box.path)) == 2001


def test_a_run_that_still_goes_on_is_left_to_its_own_process(config: Config, layout: Layout) -> None:
    with open_run(config, layout, "pretrain", "tiny") as running:
        with open_run(config, layout, "targets", "rvqvae"):
            pass
        assert logged(layout, running).info.status == "RUNNING"
        assert len(unsent(layout)) == 1


def test_what_mlflow_refuses_is_named_and_the_rest_is_kept(
    config: Config, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(config, layout, "teachers") as tracker:
        tracker.params({"rate": 1, "other": 1})
        tracker.params({"rate": 2})  # a parameter cannot change
        tracker.metrics({"loss": 3.0}, step=1)
    run = logged(layout, tracker)
    assert "MLflow refused the params of teachers" in caplog.text
    assert (run.info.status, run.data.params["rate"], run.data.metrics["loss"]) == ("FINISHED", "1", 3.0)


def test_an_outbox_on_a_full_disk_says_so_and_keeps_what_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Outbox(tmp_path, "pretrain/tiny", {}, None, None)
    box.add({"kind": "tags", "values": {"before": "1"}})
    real = box._file
    real.write(b'{"kind": "tags", "val')  # what a disk took before it was full
    with Path("/dev/full").open("wb", buffering=0) as full, caplog.at_level(logging.WARNING):
        box._file = full  # every write to it fails with ENOSPC
        box.add({"kind": "tags", "values": {"lost": "1"}})
        box.add({"kind": "tags", "values": {"lost": "2"}})
        box._file = real
        box.add({"kind": "tags", "values": {"after": "1"}})
    assert caplog.text.count("takes no more events") == 1
    assert f"[Errno {errno.ENOSPC}]" in caplog.text
    assert [event["values"] for event in read_events(box.path)[1:]] == [{"before": "1"}, {"after": "1"}]
