"""One MLflow run per trial, under the sweep's own. The driver writes it: a trial that ASHA ends cannot end its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import tune

from mert_core.sweep.trial import SCORE, STEP
from mert_core.tracking.buffer import RunTracker
from mert_core.tracking.stages import StageFacts, stage_facts
from mert_core.tracking.store import Store, connect
from mert_core.tracking.tags import run_tags

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking.protocol import Tracker

PARENT_TAG = "mlflow.parentRunId"
STAGE = "sweep-trial"


class TrialRuns(tune.Callback):
    """Opens, fills and ends the child runs.

    Args:
        config: all parameters.
        layout: folders of the working directory.
        parent: the sweep's own run. When MLflow is away (it has no id) the children are kept for later, as it is.
        sweep_id: of the sweep.
    """

    def __init__(self, config: Config, layout: Layout, parent: Tracker, sweep_id: str) -> None:
        self._config, self._layout, self._sweep_id = config, layout, sweep_id
        self._parent_id = parent.run_id
        self._store: Store | None = connect(config, layout) if parent.run_id else None
        self._open: dict[str, RunTracker] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune pickles callbacks into its experiment state, and clients cannot be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run."""
        if trial.trial_id in self._open:
            return
        name = f"{STAGE}/{trial.trial_id}"
        facts: StageFacts = stage_facts(self._config, self._layout, "sweep", self._config.sweep.run)
        tags = run_tags(self._layout, STAGE, self._config.sweep.run, self._config.seed, facts)
        tags |= {"sweep.id": self._sweep_id, "ray.trial_id": trial.trial_id}
        if self._parent_id:
            tags[PARENT_TAG] = self._parent_id
        run_id = None
        if self._store is not None:
            run_id = self._store.client.create_run(self._store.experiment_id, tags=tags, run_name=name).info.run_id
        tracker = RunTracker(self._layout, name, tags, self._store, run_id)
        tracker.params(key_params(self._config) | {f"weights.{name}": value for name, value in trial.config.items()})
        self._open[trial.trial_id] = tracker

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the score and each unweighted loss term."""
        kept = {key: float(value) for key, value in result.items() if key == SCORE or key.startswith("valid/")}
        self._open[trial.trial_id].metrics(kept, int(result[STEP]))
        self._open[trial.trial_id].flush()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial that is over, early or not."""
        self._end(trial.trial_id, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial that failed."""
        self._end(trial.trial_id, "FAILED")

    def close(self) -> None:
        """End what is still open: the sweep was cancelled."""
        for trial_id in list(self._open):
            self._end(trial_id, "KILLED")

    def _end(self, trial_id: str, status: str) -> None:
        tracker = self._open.pop(trial_id, None)
        if tracker is not None:
            tracker.close(status)


def key_params(config: Config) -> dict[str, Any]:
    """Return what parent and children both carry: in MLflow's page a filter acts on parents."""
    run = config.run(config.sweep.run)
    return {
        "swept_run": config.sweep.run, "preset": run.preset, "sweep.task": config.sweep.task, "seed": config.seed,
        "sweep.max_steps": config.sweep.max_steps, "batch_clips": run.batch_clips, "crop_seconds": run.crop_seconds,
        "learning_rate": run.learning_rate,
    }  # fmt: skip
