from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mert_core.errors import MertError
from mert_core.services.serve import build, read_deployments

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = read_deployments(ROOT / "prefect.yaml")
NAMES = {
    "reproduce/demo",
    "pretrain/run",
    "pretrain/tiny",
    "pretrain/95m",
    "pretrain/330m",
    "probe/all",
    "sweep/loss-weights",
}


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_all_deployments_are_declared() -> None:
    assert {f"{build(item).flow_name}/{item['name']}" for item in DEPLOYMENTS} == NAMES
    assert "pull" not in yaml.safe_load((ROOT / "prefect.yaml").read_text())


@pytest.mark.parametrize("item", DEPLOYMENTS, ids=lambda item: f"{item['entrypoint']}-{item['name']}")
def test_entrypoint_imports_and_its_parameters_are_valid(item: dict) -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(item["entrypoint"])
    flow.validate_parameters(item["parameters"])
    deployment = build(item)
    assert deployment.concurrency_limit == 1
    assert deployment.concurrency_options.collision_strategy == "ENQUEUE"


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"run": "1b"}, {"max_stepps": 2}, {"workers": -1}])
def test_wrong_parameters_are_refused_before_the_run(wrong: dict) -> None:
    from prefect.exceptions import ParameterTypeError, SignatureMismatchError

    from flows.pretrain import pretrain

    with pytest.raises((ParameterTypeError, SignatureMismatchError)):
        pretrain.validate_parameters({"run": "tiny", **wrong})


def test_names_are_checked_against_the_parameters_and_the_tasks() -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.pretrain import pretrain
    from flows.sweep import sweep

    assert pretrain.validate_parameters({"run": "330m"}) == {"run": "330m"} | dict.fromkeys(
        ("max_steps", "global_batch_size", "local_batch_size", "workers")
    )
    with pytest.raises(ParameterTypeError, match=r"no run is named '1b'; params\.yaml has tiny, 95m, 330m"):
        pretrain.validate_parameters({"run": "1b"})
    with pytest.raises(ParameterTypeError, match="no trial can be judged by 'demo/musdb18'; there are demo/mtt"):
        sweep.validate_parameters({"task": "demo/musdb18"})


@pytest.mark.parametrize("text", ["", "deployments: []", "deployments: [{name: a}]"])
def test_a_prefect_yaml_without_deployments_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(text)
    with pytest.raises(MertError, match=str(path)):
        read_deployments(path)
    with pytest.raises(MertError, match="repository root"):
        read_deployments(tmp_path / "none.yaml")


def test_flows_import_no_torch() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'dvc', 'transformers'}"
    code = f"import sys, flows.reproduce, flows.probe, flows.sweep; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
