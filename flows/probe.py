"""Flow `probe`: the probes of pre-trained runs, and of the floors."""

from __future__ import annotations

from typing import get_args

from prefect import flow

from flows.pretrain import RunName
from flows.stages import dvc_stage, here, stage_names


@flow(name="probe", persist_result=False)
def probe(runs: list[RunName] | None = None, floors: bool = True) -> None:
    """Probe pre-trained runs.

    Args:
        runs: named runs; one that is not pre-trained yet is pre-trained first. None: all that are pre-trained here.
        floors: probe random weights and mel statistics, too.
    """
    layout = here()
    chosen = runs if runs is not None else [run for run in get_args(RunName) if layout.model(run).is_dir()]
    stages = [name for name in stage_names(layout) if floors and name.startswith("floor@")]
    for stage in [*stages, *(f"probe@{run}" for run in chosen)]:
        dvc_stage(stage)


if __name__ == "__main__":
    probe()
