"""Flow `pretrain`: one named run."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.stages import dvc_stage

RunName = Literal["tiny", "95m", "330m"]
Count = Annotated[int, Field(ge=1)]


@flow(name="pretrain", flow_run_name="pretrain-{run}", persist_result=False)
def pretrain(
    run: RunName = "tiny",
    max_steps: Count | None = None,
    batch_clips: Count | None = None,
    accumulate: Count | None = None,
    workers: Annotated[int, Field(ge=0)] | None = None,
) -> None:
    """Pre-train one named run of ``params.yaml`` on the corpus that lies here.

    Args:
        run: the named run.
        max_steps: stop after this many optimiser steps. This and all below make it a DVC experiment: the committed
            parameters and results stay as they are.
        batch_clips: clips per worker and micro-batch.
        accumulate: micro-batches per optimiser step.
        workers: Ray Train workers; 0 trains in the stage's own process.
    """
    given = {"max_steps": max_steps, "batch_clips": batch_clips, "accumulate": accumulate, "workers": workers}
    dvc_stage(f"pretrain@{run}", run, {key: value for key, value in given.items() if value is not None})


if __name__ == "__main__":
    pretrain()
