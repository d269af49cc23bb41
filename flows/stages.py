"""The one Prefect task: a DVC stage. DVC decides whether it runs; the task starts it, shows it and can be cancelled."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run

from flows.links import link_mlflow_run
from mert_core.config import load_config
from mert_core.errors import MertError
from mert_core.experiments.rendered import HEAVY_NAME, PIPELINE_NAME, outdated
from mert_core.paths import Layout
from mert_core.services import processes
from mert_core.tracking.mlflow_store import tracking_uri

Changes = Mapping[str, int | float | str | bool]


class StageFailed(RuntimeError):
    """A stage's command ended with an error."""


def here() -> Layout:
    """Return the layout of the current folder, which must be a checkout.

    Raises:
        MertError: it is none.
    """
    layout = Layout.at(Path.cwd())
    if not (layout.root / "dvc.yaml").is_file():
        raise MertError(f"{layout.root} has no dvc.yaml. Start flows in the repository root, or use `mert up`.")
    return layout


def stage_environment(layout: Layout) -> dict[str, str]:
    """Return a stage's environment: absolute places of this checkout, and who started it, for MLflow's tags.

    The places are absolute because an experiment runs in a temporary copy of the checkout and is to be seen here.
    """
    config = load_config(layout.params)
    name = deployment.get_name()
    known = {
        "MERT_HOME": str(layout.state),
        "MLFLOW_TRACKING_URI": tracking_uri(config, layout),
        "MERT_PREFECT_FLOW_RUN_ID": flow_run.get_id() or "",
        "MERT_PREFECT_DEPLOYMENT": f"{flow_run.get_flow_name()}/{name}" if name else "",
    }
    return processes.environment({key: value for key, value in known.items() if value})


def run_command(command: list[str], layout: Layout, what: str) -> None:
    """Run a command in its own process group, its output in the Prefect log as it comes.

    Raises:
        StageFailed: its exit status is not 0; the message ends with its last lines.
    """
    logger = get_run_logger()
    last: deque[str] = deque(maxlen=15)

    def emit(line: str) -> None:
        last.append(line)
        logger.info("%s", line)

    status = processes.stream(command, cwd=layout.root, env=stage_environment(layout), emit=emit)
    if status != 0:
        raise StageFailed(f"{what} ended with status {status}. Its last lines:\n" + "\n".join(last))


@cache
def stage_names(layout: Layout, file: str = PIPELINE_NAME) -> tuple[str, ...]:
    """Return the stages of a rendered file, in its order; none where it is missing. DVC is asked once per flow run."""
    if not (layout.root / file).exists():
        return ()
    lines: list[str] = []
    command = [processes.tool("dvc"), "stage", "list", "--name-only", file]
    if status := processes.stream(command, cwd=layout.root, env=processes.environment(), emit=lines.append):
        raise StageFailed(f"`dvc stage list` ended with status {status}:\n" + "\n".join(lines))
    return tuple(line.rpartition(":")[2] for line in lines)


def address(layout: Layout, name: str) -> str:
    """Return what DVC calls a stage from the repository root: its name, with the path of its file if it is a heavy one.

    Raises:
        MertError: no rendered file has such a stage, or they are older than ``params.yaml``.
    """
    if line := outdated(load_config(layout.params), layout):
        raise MertError(line)
    if name in stage_names(layout):
        return name
    if name in stage_names(layout, HEAVY_NAME):
        return f"{HEAVY_NAME}:{name}"
    known = [*stage_names(layout), *stage_names(layout, HEAVY_NAME)]
    raise MertError(f"no stage {name!r}; there are {', '.join(known)}")


def override(run: str, changes: Changes) -> str:
    """Return the ``-S`` argument of ``dvc exp run`` that changes fields of a named run.

    The dictionary form, because the dotted one cannot name a run that begins with a digit (``runs.330m.…`` is a syntax
    error there); ``++`` adds a field that the run has not yet.
    """
    fields = ",".join(f"{key}:{_literal(value)}" for key, value in sorted(changes.items()))
    return f"++runs={{{run}:{{{fields}}}}}"


def _literal(value: int | float | str | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


# DVC is the only cache and the only one to decide about running again: no result, no cache, no retries here.
@task(name="dvc stage", task_run_name="{stage}", cache_policy=NO_CACHE, retries=0, persist_result=False)
def dvc_stage(stage: str, run: str | None = None, changes: Changes | None = None) -> None:
    """Bring one stage up to date with ``dvc repro``, what it depends on first.

    With ``changes`` to the fields of the named run it becomes a DVC experiment in a temporary copy of the checkout:
    parameters, lock and outputs here stay as they are.

    Raises:
        StageFailed: DVC or the stage's command ended with an error.
    """
    layout = here()
    target = address(layout, stage)
    began = time.time()
    if changes:
        assert run is not None
        command = [processes.tool("dvc"), "exp", "run", "--temp", "-S", override(run, changes), target]
        copies = layout.root / ".dvc" / "tmp" / "exps" / "standalone"
        before = set(copies.glob("tmp*"))
        try:
            run_command(command, layout, f"experiment {stage} with {dict(changes)}")
        finally:
            for copy in set(copies.glob("tmp*")) - before:  # DVC leaves it behind when it is killed
                shutil.rmtree(copy, ignore_errors=True)
    else:
        run_command([processes.tool("dvc"), "repro", target], layout, f"dvc repro {target}")
    link_mlflow_run(layout, stage, since=began, experiment=bool(changes))
