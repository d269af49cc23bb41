from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    project = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]
    pairs = (text.split("==") for text in project["dependencies"] if "==" in text)
    return {name.partition("[")[0]: version for name, version in pairs}


def test_services_run_the_versions_of_the_project(pins: dict[str, str]) -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    assert services["prefect"]["image"].startswith(f"prefecthq/prefect:{pins['prefect']}-")
    assert services["ray-head"]["image"].startswith(f"rayproject/ray:{pins['ray']}-")
    assert f"mlflow=={pins['mlflow']} " in (INFRA / "mlflow.Dockerfile").read_text()


def test_compose_hangs_together() -> None:
    tree = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert {"postgres", "mlflow", "prefect", "minio", "ray-head"} <= set(tree["services"])
    for name, service in tree["services"].items():
        assert ("image" in service) != ("build" in service), name
        assert not service.get("image", "").endswith(":latest"), name
        assert set(service.get("depends_on", {})) <= set(tree["services"]), name
        assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service.get("ports", [])), name
    assert "pg_trgm" in (INFRA / "postgres" / "databases.sql").read_text()


def test_secrets_are_asked_for_and_prefect_lets_nobody_in_without() -> None:
    text = (INFRA / "compose.yaml").read_text()
    prefect = yaml.safe_load(text)["services"]["prefect"]["environment"]
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_AUTH_STRING:?")
    assert "*" not in prefect["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    example = (INFRA / ".env.example").read_text()
    for secret in set(re.findall(r"\$\{(\w+):\?", text)):
        assert f"\n{secret}=\n" in example, secret


def test_ray_reads_its_cluster_file() -> None:
    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((INFRA / "ray-cluster.yaml").read_text()), schema)


def test_the_job_is_a_valid_script() -> None:
    subprocess.run(["bash", "-n", str(INFRA / "train-330m.sbatch")], check=True)


def test_the_job_trains_a_stage_that_there_is() -> None:
    heavy = yaml.safe_load((INFRA.parent / "heavy" / "dvc.yaml").read_text())["stages"]
    (stage,) = re.findall(r"heavy/dvc\.yaml:(\S+)", (INFRA / "train-330m.sbatch").read_text())
    assert heavy[stage]["cmd"] == "mert pretrain --run 330m"
