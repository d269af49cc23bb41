"""Flow `pretrain`: one named run."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import AfterValidator, Field

from flows.stages import dvc_stage, here
from mert_core.config import load_config
from mert_core.experiments.rendered import stage_name


def known_run(name: str) -> str:
    """Return a run's name as it is.

    Raises:
        ValueError: ``params.yaml`` has no such run; the message lists those there are.
    """
    runs = load_config(here().params).runs
    if name not in runs:
        raise ValueError(f"no run is named {name!r}; params.yaml has {', '.join(runs)}")
    return name


RunName = Annotated[str, AfterValidator(known_run)]
Count = Annotated[int, Field(ge=1)]


@flow(name="pretrain", flow_run_name="pretrain-{run}", persist_result=False)
def pretrain(
    run: RunName,
    max_steps: Count | None = None,
    global_batch_size: Count | None = None,
    local_batch_size: Count | None = None,
    workers: Annotated[int, Field(ge=0)] | None = None,
) -> None:
    """Pre-train one named run of ``params.yaml``, with what it needs first: corpus, teachers, targets.

    Args:
        run: the named run.
        max_steps: stop after this many updates. This and all below make it a DVC experiment: the committed parameters
            and results stay as they are.
        global_batch_size: clips per update, over all workers.
        local_batch_size: clips that a worker holds at a time.
        workers: Ray workers; 0 trains in the stage's own process.
    """
    given = {
        "max_steps": max_steps,
        "global_batch_size": global_batch_size,
        "local_batch_size": local_batch_size,
        "workers": workers,
    }
    dvc_stage(stage_name("pretrain", run), run, {key: value for key, value in given.items() if value is not None})


if __name__ == "__main__":
    pretrain(run="tiny")
