"""The process that serves every deployment of ``prefect.yaml``: ``python -m mert_core.services.serve FILE READY``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from mert_core.config import load_config
from mert_core.errors import MertError
from mert_core.files import write_text
from mert_core.paths import PARAMS_NAME


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """Read the deployments of a ``prefect.yaml``, and add one for each run of the ``params.yaml`` beside it.

    They are the deployment ``run``, which takes any, under the name of the run and with that parameter.

    Raises:
        MertError: no file, no deployments, or one without name or entrypoint.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(f"cannot read {path}: {error.strerror}. Run this from the repository root.") from error
    deployments = tree.get("deployments") if isinstance(tree, dict) else None
    if not deployments:
        raise MertError(f"{path} declares no deployments")
    for item in deployments:
        if not item.get("name") or not item.get("entrypoint"):
            raise MertError(f"{path}: a deployment needs a name and an entrypoint; found {item!r}")
    of_runs = [
        {**item, "name": run, "description": f"Pre-train the run {run}.", "parameters": {"run": run}}
        for item in deployments
        if item["name"] == "run"
        for run in load_config(path.parent / PARAMS_NAME).runs
    ]
    return [*deployments, *of_runs]


def build(item: dict[str, Any]) -> Any:
    """Turn one deployment of ``prefect.yaml`` into a Prefect ``RunnerDeployment``, importing its flow."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.deployments.runner import RunnerDeployment

    limit = item.get("concurrency_limit")
    return RunnerDeployment.from_entrypoint(
        item["entrypoint"],
        name=item["name"],
        parameters=item.get("parameters") or {},
        description=item.get("description"),
        tags=item.get("tags") or [],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
    )


def main(file: Path, ready: Path) -> None:
    """Register all deployments, write their names to ``ready``, and run what is scheduled, one run at a time.

    One at a time, because DVC lets one ``dvc repro`` at a time into a checkout.
    """
    from prefect import serve

    deployments = [build(item) for item in read_deployments(file)]
    for deployment in deployments:
        deployment.apply()
    write_text(ready, "".join(f"{item.flow_name}/{item.name}\n" for item in deployments))
    serve(*deployments, limit=1, pause_on_shutdown=False, print_starting_message=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
