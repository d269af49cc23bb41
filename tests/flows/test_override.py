from __future__ import annotations

from pathlib import Path

import pytest

from flows.links import note_path, run_address
from flows.stages import address, override, stage_names
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.services.up import MLFLOW_PAGE


def test_override_is_what_hydra_reads_back() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    changes = {"max_steps": 2, "learning_rate": 1e-05, "precision": "bf16"}
    parsed = OverridesParser.create().parse_override(override("330m", changes))
    assert parsed.key_or_group == "runs"
    assert parsed.value() == {"330m": changes}


def test_stages_are_found_in_both_files(in_checkout: Path) -> None:
    layout = Layout.at(in_checkout)
    assert stage_names(layout) == ("quick", "broken", "pretrain-tiny")
    assert address(layout, "quick") == "quick"
    assert address(layout, "pretrain-330m") == "heavy/dvc.yaml:pretrain-330m"
    with pytest.raises(MertError, match="pretrain-1b"):
        address(layout, "pretrain-1b")


def test_a_plan_that_is_too_old_stops_a_flow(in_checkout: Path) -> None:
    text = (in_checkout / "params.yaml").read_text()
    try:
        (in_checkout / "params.yaml").write_text(text.replace("runs:  ", "runs:\n  more: {}\n# ", 1))
        with pytest.raises(MertError, match="run `mert plan`"):
            address(Layout.at(in_checkout), "quick")
    finally:
        (in_checkout / "params.yaml").write_text(text)


def test_a_note_is_found_by_the_stages_name(in_checkout: Path) -> None:
    layout = Layout.at(in_checkout)
    assert note_path(layout, "heavy/dvc.yaml:pretrain-330m") == layout.last_runs / "pretrain@330m.json"
    assert note_path(layout, "probe-random-weights") == layout.last_runs / "probe@random-weights.json"
    assert note_path(layout, "probe_set") == layout.last_runs / "probe-set.json"


def test_address_is_at_the_server_of_the_run_or_at_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    note = {"mlflow_run_id": "r", "experiment_id": "1", "mlflow_uri": "https://mlflow.example.org/"}
    assert run_address(note) == "https://mlflow.example.org/#/experiments/1/runs/r"
    monkeypatch.setenv(MLFLOW_PAGE, "http://127.0.0.1:5999")
    assert run_address(note | {"mlflow_uri": "sqlite:////x.db"}) == "http://127.0.0.1:5999/#/experiments/1/runs/r"
