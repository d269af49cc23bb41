"""Flow `reproduce`: the whole line of ``dvc.yaml``, one task per stage."""

from __future__ import annotations

from prefect import flow

from flows.links import show_scores
from flows.stages import dvc_stage, here, stage_names


@flow(name="reproduce", persist_result=False)
def reproduce() -> None:
    """Bring every stage of ``dvc.yaml`` up to date: from music to the report."""
    layout = here()
    for stage in stage_names(layout):
        dvc_stage(stage)
    show_scores(layout)


if __name__ == "__main__":
    reproduce()
