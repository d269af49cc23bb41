"""Flow `probe`: the probes of pre-trained runs, and of the baselines."""

from __future__ import annotations

from prefect import flow

from flows.pretrain import RunName
from flows.stages import dvc_stage, here
from mert_core.config import BASELINES, load_config
from mert_core.experiments.rendered import stage_name


@flow(name="probe", persist_result=False)
def probe(runs: list[RunName] | None = None, baselines: bool = True) -> None:
    """Probe pre-trained runs.

    Args:
        runs: named runs; one that is not pre-trained yet is pre-trained first. None: all that are pre-trained here.
        baselines: probe random weights and mel statistics, too.
    """
    layout = here()
    known = load_config(layout.params).runs
    chosen = runs if runs is not None else [run for run in known if layout.model(run).is_dir()]
    for name in (*(BASELINES if baselines else ()), *chosen):
        dvc_stage(stage_name("probe", name))


if __name__ == "__main__":
    probe()
