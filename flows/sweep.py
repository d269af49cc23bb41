"""Flow `sweep`: search for the loss weights. Timing decides which trials end early, so it is no DVC stage."""

from __future__ import annotations

import time
from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import AfterValidator

from flows.links import link_mlflow_run
from flows.pretrain import Count, RunName
from flows.stages import dvc_stage, here, run_command
from mert_core.config import load_config
from mert_core.experiments.rendered import stage_name
from mert_core.services import processes


def known_task(name: str) -> str:
    """Return a task's name as it is.

    Raises:
        ValueError: no validation score of that task can judge a trial; the message lists those that can.
    """
    from mert_core.probing.tasks import sweep_tasks

    if name not in sweep_tasks():
        raise ValueError(f"no trial can be judged by {name!r}; there are {', '.join(sweep_tasks())}")
    return name


TaskName = Annotated[str, AfterValidator(known_task)]


@task(name="search", cache_policy=NO_CACHE, retries=0, persist_result=False)
def search(assignments: list[str]) -> None:
    """Run ``mert sweep`` in its own process group and link its parent MLflow run."""
    layout = here()
    began = time.time()
    command = [processes.tool("mert"), "sweep"]
    for assignment in assignments:
        command += ["-S", assignment]
    run_command(command, layout, "mert sweep")
    link_mlflow_run(layout, "sweep", since=began)


@flow(name="sweep", persist_result=False)
def sweep(
    run: RunName | None = None,
    trials: Count | None = None,
    max_steps: Count | None = None,
    grace_steps: Count | None = None,
    concurrent: Count | None = None,
    task: TaskName | None = None,
) -> None:
    """Search the weights of the teachers' losses with Ray Tune and ASHA; ``mert sweep --apply latest`` takes them over.

    Args:
        run: the named run whose weights are searched; this and all below default to ``sweep`` of ``params.yaml``.
        trials: how many sets of weights are tried.
        max_steps: optimiser steps of a trial that is not stopped early.
        grace_steps: optimiser steps before a trial may be stopped.
        concurrent: trials at a time.
        task: the probe whose validation score judges a trial.
    """
    given = {
        "run": run,
        "trials": trials,
        "max_steps": max_steps,
        "grace_steps": grace_steps,
        "concurrent": concurrent,
        "task": task,
    }
    config = load_config(here().params)
    stored = [term.teacher for term in config.run(run or config.sweep.run).teachers if term.targets == "stored"]
    for stage in (*(stage_name("targets", name) for name in stored), "probe_set"):  # what a trial reads
        dvc_stage(stage)
    search([f"sweep.{key}={value}" for key, value in given.items() if value is not None])


if __name__ == "__main__":
    sweep()
