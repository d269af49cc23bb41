from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.tracking import NullTracker, Tracker, open_run
from tests.tracking.conftest import client_of, logged, unsent, write_corpus


def test_a_run_carries_metrics_params_tags_and_files(
    config: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(layout)
    monkeypatch.setenv("DVC_STAGE", "pretrain@tiny")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "flow-7")
    note = layout.root / "note.txt"
    note.write_text("hello")
    pages = layout.root / "pages"
    pages.mkdir()
    (pages / "a.png").write_bytes(b"a")
    with open_run(config, layout, "pretrain", "tiny", tags={"sweep.id": "s1"}) as tracker:
        assert isinstance(tracker, Tracker)
        for step in range(1200):
            tracker.metrics({"train/acoustic[0]": step / 10}, step=step)
        tracker.metrics({"odd": math.nan})
        tracker.params({"model": {"layers": 4, "pair": [1, 2]}})
        tracker.params({"model": {"pair": (1, 2)}, "late": "yes"})
        tracker.artifact(note, "notes/note.md")
        note.write_text("of another run by now")
        tracker.artifact(pages, "figures")
        tracker.table("gate", [{"codebook": 0, "usage": 0.5}, {"codebook": 1, "usage": 0.6}])
    run = logged(layout, tracker)
    params, tags = run.data.params, run.data.tags
    assert (run.info.run_name, run.info.status) == ("pretrain/tiny", "FINISHED")
    assert params["pretrain.model.preset"] == "mert-tiny"
    assert (params["model.layers"], params["late"]) == ("4", "yes")
    assert (
        tags.items()
        >= {
            "dvc.stage": "pretrain@tiny",
            "prefect.flow_run_id": "flow-7",
            "sweep.id": "s1",
            "input.corpus": corpus.id,
            "seed": str(config.seed),
        }.items()
    )
    assert len(tags["params.sha256"]) == 64
    assert {"hardware.cpu", "hardware.cores"} <= set(tags)
    history = client_of(layout).get_metric_history(run.info.run_id, "train/acoustic_0_")
    assert [(point.step, point.value) for point in history] == [(step, step / 10) for step in range(1200)]
    artifacts = layout.state / "mlflow" / "artifacts" / run.info.run_id / "artifacts"
    assert (artifacts / "notes" / "note.md").read_text() == "hello"
    assert (artifacts / "figures" / "a.png").exists()
    assert json.loads((artifacts / "gate.json").read_text())["data"] == [[0, 0.5], [1, 0.6]]
    assert "gate.json" in tags["mlflow.loggedArtifacts"]
    assert not unsent(layout)
    assert json.loads((layout.last_runs / "pretrain@tiny.json").read_text()) == {
        "mlflow_run_id": run.info.run_id,
        "mlflow_uri": f"sqlite:///{layout.state}/mlflow/mlflow.db",
        "experiment_id": run.info.experiment_id,
    }
    (dataset,) = (item.dataset for item in run.inputs.dataset_inputs)
    assert [column["type"] for column in json.loads(dataset.schema)["mlflow_colspec"]] == ["string", "long", "boolean"]
    assert (dataset.name, dataset.digest, json.loads(dataset.profile)["num_rows"]) == ("corpus", corpus.id[:36], 3)


def test_the_corpus_run_logs_its_manifest_and_record(config: Config, layout: Layout) -> None:
    with open_run(config, layout, "corpus") as tracker:
        record = write_corpus(layout)
    run = logged(layout, tracker)
    assert run.data.tags["output.record"] == record.id
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["corpus"]
    assert (layout.last_runs / "corpus.json").exists()


@pytest.mark.parametrize(
    ("raised", "status"), [(MertError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(3), "KILLED")]
)
def test_an_error_ends_the_run_and_passes_through(
    config: Config, layout: Layout, raised: BaseException, status: str
) -> None:
    with pytest.raises(type(raised)), open_run(config, layout, "targets", "rvqvae") as tracker:
        tracker.metrics({"before": 1.0}, step=3)
        raise raised
    run = logged(layout, tracker)
    assert (run.info.status, run.data.metrics) == (status, {"before": 1.0})


def test_children_nest_and_a_run_goes_on(config: Config, layout: Layout) -> None:
    with open_run(config, layout, "sweep", "tiny") as parent:
        with open_run(config, layout, "pretrain", "tiny", parent_run_id=parent.run_id) as child:
            child.metrics({"loss": 2.0}, step=1)
        with open_run(config, layout, "pretrain", "tiny", resume_run_id=child.run_id) as again:
            again.metrics({"loss": 1.0}, step=2)
            again.flush()
            assert logged(layout, again).info.status == "RUNNING"
    assert again.run_id == child.run_id
    run = logged(layout, child)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.metrics == {"loss": 1.0}


def test_a_part_of_a_stage_is_a_run_below_it(config: Config, layout: Layout) -> None:
    with pytest.raises(ValueError, match="of the second"), open_run(config, layout, "probe", "tiny") as tracker:
        with tracker.child("probe-task/tiny/demo/gs_key", {"probe.task": "demo/gs_key"}) as first:
            first.metrics({"accuracy": 0.5})
        with tracker.child("probe-task/tiny/demo/emo", {"probe.task": "demo/emo"}):
            raise ValueError("of the second")
    client = client_of(layout)
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    parent, done = runs["probe/tiny"], runs["probe-task/tiny/demo/gs_key"]
    assert done.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (done.data.tags["probe.task"], done.data.tags["mert.run"]) == ("demo/gs_key", "tiny")
    assert done.data.metrics == {"accuracy": 0.5}
    assert done.info.status == "FINISHED"
    assert runs["probe-task/tiny/demo/emo"].info.status == parent.info.status == "FAILED"


def in_a_process(work: Callable[[], None]) -> int:
    """Run ``work`` in a fork, where MLflow's import, seconds long, is already done; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray, if a test before this one used it, left its own
        try:
            work()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_leaves_no_run_running_and_loses_nothing(
    config: Config, layout: Layout, number: signal.Signals
) -> None:
    def train() -> None:
        with open_run(config, layout, "pretrain", "tiny") as tracker:
            tracker.metrics({"loss": 2.0}, step=1)
            tracker.flush()
            tracker.metrics({"loss": 1.0}, step=2)
            tracker.table("gate", [{"codebook": 0}])
            os.kill(os.getpid(), number)
            signal.pause()

    status = in_a_process(train)
    run_id = json.loads((layout.last_runs / "pretrain@tiny.json").read_text())["mlflow_run_id"]
    if number == signal.SIGTERM:
        assert status == 128 + signal.SIGTERM
        assert client_of(layout).get_run(run_id).info.status == "KILLED"
    else:
        assert client_of(layout).get_run(run_id).info.status == "RUNNING"
        with open_run(config, layout, "targets", "rvqvae"):
            pass
        assert client_of(layout).get_run(run_id).info.status == "FAILED"
    assert [point.value for point in client_of(layout).get_metric_history(run_id, "loss")] == [2.0, 1.0]
    assert [item.path for item in client_of(layout).list_artifacts(run_id)] == ["gate.json"]
    assert not unsent(layout)


def test_a_wrong_uri_is_named(layout: Layout, repository: Path) -> None:
    config = load_config(repository / "params.yaml", ["tracking.uri=file:./mlruns"])
    with pytest.raises(MertError, match=r"tracking\.uri is 'file:\./mlruns'"), open_run(config, layout, "corpus"):
        pass


def test_an_experiment_is_called_by_what_it_changes(config: Config, layout: Layout, repository: Path) -> None:
    shutil.copy(repository / "params.yaml", layout.root / "params.yaml")
    git = ["git", "-C", str(layout.root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-q", "-m", "start"]):
        subprocess.run([*git, *command], check=True)
    short = load_config(repository / "params.yaml", ["runs.tiny.max_steps=20"])
    with open_run(config, layout, "pretrain", "tiny") as whole:
        pass
    with open_run(short, layout, "pretrain", "tiny") as changed:
        pass
    with open_run(short, layout, "targets", "rvqvae") as untouched:
        pass
    runs = [logged(layout, tracker) for tracker in (whole, changed, untouched)]
    assert [run.info.run_name for run in runs] == ["pretrain/tiny", "pretrain/tiny max_steps=20", "targets/rvqvae"]
    assert [run.data.tags.get("mert.experiment") for run in runs] == [None, "max_steps=20", None]


def test_the_null_tracker_is_a_tracker_and_importing_tracking_is_light(repository: Path) -> None:
    assert isinstance(NullTracker(), Tracker)
    code = "import sys, mert_core.tracking; print(sorted({'mlflow', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
