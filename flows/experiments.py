"""The heavy runs of ``experiments/dvc.yaml``, and which of them are stages of this checkout."""

from __future__ import annotations

import yaml

from mert_core.config import load_config
from mert_core.errors import MertError
from mert_core.files import write_text
from mert_core.paths import Layout

STAGES_FILE = "experiments/dvc.yaml"
LIST_FILE = "experiments/params.yaml"
STAGES = ("pretrain", "probe")


def run_of(layout: Layout, stage: str) -> str | None:
    """Return the run that a heavy stage such as ``pretrain@330m`` is of, or None where ``stage`` is none."""
    name, _, run = stage.partition("@")
    known = name in STAGES and run in load_config(layout.root / "params.yaml").runs
    return run if known else None


def listed(layout: Layout) -> list[str]:
    """Return the runs that are stages here.

    Raises:
        MertError: the list cannot be read.
    """
    path = layout.root / LIST_FILE
    try:
        runs = yaml.safe_load(path.read_text(encoding="utf-8"))["runs"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise MertError(
            f"{path} cannot be read ({error}); expected a line such as `runs: [330m]`. `git restore` brings it back."
        ) from error
    return [str(run) for run in runs or []]


def list_run(layout: Layout, run: str) -> bool:
    """Make a run's stages part of this checkout's DAG; return whether they were not yet."""
    runs = listed(layout)
    if run in runs:
        return False
    path = layout.root / LIST_FILE
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.startswith("#")]
    write_text(path, "\n".join([*kept, f"runs: [{', '.join([*runs, run])}]"]) + "\n")
    return True


def listing(layout: Layout, run: str) -> str:
    """Return the ``-S`` argument of ``dvc exp run`` that lists a run for one experiment."""
    runs = listed(layout)
    return f"{LIST_FILE}:runs=[{','.join(runs if run in runs else [*runs, run])}]"
