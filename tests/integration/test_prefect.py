from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

from flows.pretrain import pretrain
from flows.stages import StageFailed, dvc_stage
from tests.flow_checkout import checkout, git, in_checkout

__all__ = ["checkout", "in_checkout"]
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        with prefect_test_harness(server_startup_timeout=180):
            yield


@flow(name="one-stage")
def one_stage(stage: str) -> None:
    dvc_stage(stage)


def test_a_stage_runs_once_and_its_output_is_in_the_log(in_checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    one_stage("quick")
    assert (in_checkout / "quick.txt").read_text() == "1"
    assert "hello from the stage" in caplog.messages
    caplog.clear()
    one_stage("quick")
    assert "Stage 'quick' didn't change, skipping" in caplog.messages
    assert "hello from the stage" not in caplog.messages
    git(in_checkout, "add", "-A")
    git(in_checkout, "commit", "-q", "-m", "lock")


def test_a_failing_stage_fails_the_run_with_its_last_lines(in_checkout: Path) -> None:
    state = one_stage("broken", return_state=True)
    assert state.is_failed()
    with pytest.raises(StageFailed, match="what went wrong"):
        state.result()


def test_overrides_run_as_an_experiment_that_is_seen_here(in_checkout: Path) -> None:
    before = git(in_checkout, "status", "--porcelain")
    state = pretrain("330m", max_steps=2, return_state=True)
    assert state.is_completed()
    notes = in_checkout / ".mert" / "last-runs"
    seen = json.loads((notes / "seen.json").read_text())
    assert seen["max_steps"] == 2
    assert Path(seen["folder"]) != in_checkout  # a temporary copy …
    assert not Path(seen["folder"]).exists()
    note = json.loads((notes / "pretrain@330m.json").read_text())
    assert (
        note["mlflow_uri"] == f"sqlite:///{in_checkout / '.mert' / 'mlflow' / 'mlflow.db'}"
    )  # … with the store of this one
    assert git(in_checkout, "status", "--porcelain") == before
    assert not (in_checkout / "330m.txt").exists()

    artifact = Artifact.get(key="mlflow-pretrain-330m")
    assert artifact is not None
    assert "/#/experiments/7/runs/abc" in str(artifact.data)
    assert str(artifact.flow_run_id) == str(state.state_details.flow_run_id)


def test_a_heavy_run_is_reached_by_name(in_checkout: Path) -> None:
    assert pretrain("95m", return_state=True).is_completed()
    assert (in_checkout / "95m.txt").exists()
    assert "pretrain-95m" in (in_checkout / "heavy" / "dvc.lock").read_text()
