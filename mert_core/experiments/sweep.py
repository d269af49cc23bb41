"""``mert sweep``: the search over the loss weights of one run, and its winner, which becomes part of ``params.yaml``.

Ray Tune with ASHA tries sets of weights. Each trial has an MLflow run under the sweep's own, which the driver writes: a
trial that ASHA ends cannot end its run.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from mert_core.cluster import cluster_gpus, ray_running
from mert_core.config import Config, PretrainConfig, load_config
from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.experiments.rendered import stage_name
from mert_core.files import atomic_path, write_json
from mert_core.paths import Layout
from mert_core.probing.tasks import sweep_task

if TYPE_CHECKING:
    from mert_core.config import LossTerm
    from mert_core.model.mert import MertModel
    from mert_core.tracking import RunTracker, Tracker

SCORE = "score"
STEP = "step"
TRIAL_STAGE = "sweep-trial"
RESULT_NAME = "sweep.json"
WEIGHT_DIGITS = 4  # more would claim a precision that a search of some trials has not
_OBJECT_STORE_BYTES = 150 * 2**20


@dataclass(frozen=True)
class Trial:
    """What became of one set of weights, by teacher: its last step and score, or its error."""

    id: str
    weights: dict[str, float]
    step: int
    score: float | None
    error: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A finished search."""

    id: str
    run: str
    task: str
    max_steps: int
    winner: Trial
    trials: list[Trial]


def sweeps_folder(layout: Layout) -> Path:
    """Return the folder of all sweeps of this checkout; local state, since their outcome depends on timing."""
    return layout.state / "sweeps"


def run(config: Config, layout: Layout, tracker: RunTracker) -> Sweep:
    """Search the weights of ``sweep.run`` and keep the outcome under the state folder's ``sweeps``.

    The first trial has the run's present weights; the others are drawn log-uniformly from ``sweep.weight_range``. The
    winner has the best score among the trials that went furthest: scores of different steps do not compare.

    Args:
        config: all parameters.
        layout: folders of an absolute working directory with corpus, targets and probe set.
        tracker: the parent run.

    Raises:
        MertError: an input is missing, or no trial gave a score.
    """
    sweep = config.sweep
    terms = [term for term in config.run(sweep.run).teachers if term.weight]
    stored = [term.teacher for term in terms if term.targets == "stored"]
    for folder in (layout.corpus, *map(layout.targets, stored), layout.probe_set):
        read_record(folder)  # says which stage has not run
    sweep_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    tracker.tags({"sweep.id": sweep_id})
    tracker.params(_key_params(config))

    low, high = sweep.weight_range
    present = {term.teacher: term.weight for term in terms}
    tuning = tune.TuneConfig(
        num_samples=sweep.trials,
        max_concurrent_trials=sweep.concurrent,
        search_alg=BasicVariantGenerator(
            points_to_evaluate=[present], random_state=config.seed, max_concurrent=sweep.concurrent
        ),
        scheduler=ASHAScheduler(
            time_attr=STEP,
            metric=SCORE,
            mode="max",
            max_t=sweep.max_steps,
            grace_period=min(sweep.grace_steps, sweep.max_steps),
            reduction_factor=sweep.reduction,
        ),
        trial_dirname_creator=lambda trial: str(trial.trial_id),  # the default is longer than some paths allow
    )
    children = TrialRuns(config, tracker, sweep_id)
    # A name of its own for each sweep: Tune silently resumes one that exists.
    keeping = tune.RunConfig(
        name="ray", storage_path=str(sweeps_folder(layout) / sweep_id), callbacks=[children], verbose=1
    )
    trainable = tune.with_parameters(
        run_trial, parameters=config.model_dump(mode="json"), root=str(layout.root), state=str(layout.state)
    )
    try:
        os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        processors = max(os.cpu_count() or 1, config.threads)
        with ray_running(processors, config.threads, _OBJECT_STORE_BYTES, log_to_driver=False):
            resources: dict[str, float] = {"cpu": config.threads}
            if gpus := cluster_gpus(config.run(sweep.run).device):
                resources["gpu"] = min(1.0, gpus / sweep.concurrent)
            tuner: Any = tune.Tuner(
                tune.with_resources(trainable, resources),
                param_space={name: tune.loguniform(low, high) for name in present},
                tune_config=tuning,
                run_config=keeping,
            )
            trials = [_trial(result) for result in tuner.fit()]
    finally:
        children.close()
    return _conclude(config, layout, tracker, sweep_id, trials)


def run_trial(weights: dict[str, float], parameters: dict[str, Any], root: str, state: str) -> None:
    """Train with the given weights and report the probe's score after each validation; a Ray Tune trainable.

    The score judges, not the weighted loss, whose scale moves with the weights. Each unweighted term is reported, too.

    Args:
        weights: weight of the loss by teacher.
        parameters: the whole configuration as plain data.
        root: absolute working directory.
        state: absolute state folder.
    """
    os.environ["MERT_HOME"] = state
    from mert_core.probing.run import validation_score
    from mert_core.training.stage import run_trial as train

    config, layout = Config.model_validate(parameters), Layout.at(Path(root))

    def report(step: int, terms: dict[str, float], model: MertModel) -> None:
        score = validation_score(model, config, layout, sweep_task(config.sweep))
        tune.report({STEP: step, SCORE: score, **{f"valid/{name}": value for name, value in terms.items()}})

    train(config, layout, trial_params(config, weights), report)


def trial_params(config: Config, weights: dict[str, float]) -> PretrainConfig:
    """Return the swept run's parameters with other weights, in process, validated where ASHA decides.

    Learning rate and its schedule stay the run's own: a trial is the beginning of that run.
    """
    base = config.run(config.sweep.run)
    changes = {
        "teachers": [term.model_dump() | {"weight": weights.get(term.teacher, term.weight)} for term in base.teachers],
        "workers": 0,
        "max_steps": config.sweep.max_steps,
        "schedule_steps": base.decay_steps,
        "validate_every": min(config.sweep.grace_steps, config.sweep.max_steps),
    }
    return PretrainConfig.model_validate(base.model_dump() | changes)


class TrialRuns(tune.Callback):
    """Opens, fills and ends the child runs.

    Args:
        config: all parameters.
        parent: the sweep's own run.
        sweep_id: id of the sweep.
    """

    def __init__(self, config: Config, parent: RunTracker, sweep_id: str) -> None:
        self._config, self._parent, self._sweep_id = config, parent, sweep_id
        self._open: dict[str, RunTracker] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune pickles callbacks into its experiment state, and clients cannot be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run."""
        if trial.trial_id in self._open:
            return
        tags = {"mert.stage": TRIAL_STAGE, "sweep.id": self._sweep_id, "ray.trial_id": trial.trial_id}
        tracker = self._parent.open_child(f"{TRIAL_STAGE}/{trial.trial_id}", tags)
        tracker.params(_key_params(self._config) | {f"weights.{name}": value for name, value in trial.config.items()})
        self._open[trial.trial_id] = tracker

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the score and each unweighted loss term."""
        kept = {key: float(value) for key, value in result.items() if key == SCORE or key.startswith("valid/")}
        self._open[trial.trial_id].metrics(kept, int(result[STEP]))

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
        if tracker := self._open.pop(trial_id, None):
            tracker.close(status)


def _key_params(config: Config) -> dict[str, Any]:
    """Return what parent and children both carry: in MLflow's page a filter acts on parents."""
    run, sweep = config.run(config.sweep.run), config.sweep
    return {
        "swept_run": sweep.run,
        "preset": run.model.preset,
        "sweep.task": sweep_task(sweep),
        "seed": config.seed,
        "sweep.max_steps": sweep.max_steps,
        "global_batch_size": run.global_batch_size,
        "crop_seconds": run.crop_seconds,
        "learning_rate": run.learning_rate,
    }


def _trial(result: Any) -> Trial:
    metrics, weights = result.metrics or {}, result.config or {}
    score = metrics.get(SCORE)
    lines = str(result.error).strip().splitlines() if result.error else []
    return Trial(
        id=Path(result.path).name,
        weights={name: float(weight) for name, weight in weights.items()},
        step=int(metrics.get(STEP, 0)),
        score=float(score) if score is not None and math.isfinite(score) else None,
        error=lines[-1] if lines else None,
    )


def _conclude(config: Config, layout: Layout, tracker: Tracker, sweep_id: str, trials: list[Trial]) -> Sweep:
    usable = [trial for trial in trials if trial.score is not None and trial.error is None]
    if not usable:
        errors = "\n".join(f"  {trial.id}: {trial.error or 'no score'}" for trial in trials)
        raise MertError(f"no trial of sweep {sweep_id} gave a score:\n{errors}\nDoes `mert pretrain` work by itself?")
    winner = max(usable, key=_standing)
    sweep = Sweep(sweep_id, config.sweep.run, sweep_task(config.sweep), config.sweep.max_steps, winner, trials)
    write_json(sweeps_folder(layout) / sweep_id / RESULT_NAME, asdict(sweep))
    tracker.metrics({"best/score": winner.score or 0.0, "trials/failed": len(trials) - len(usable)}, winner.step)
    tracker.params({f"best.{name}": weight for name, weight in winner.weights.items()} | {"best.trial": winner.id})
    rows = [asdict(trial) for trial in trials]
    tracker.table("trials", [{"id": row["id"], **row.pop("weights"), **row} for row in rows])
    return sweep


def describe(sweep: Sweep) -> str:
    """Return the outcome as a table, best first, and how to take the winner over."""
    names = list(sweep.winner.weights)
    widths = {name: max(len(name), 8) for name in names}
    header = "  ".join(f"{name:>{widths[name]}}" for name in names)
    lines = [f"sweep {sweep.id}: {sweep.task} on validation, run {sweep.run}", f"  {header}   step   score"]
    for trial in sorted(sweep.trials, key=_standing, reverse=True):
        score = f"{trial.score:.4f}" if trial.score is not None else "–"
        mark = "  ← winner" if trial == sweep.winner else f"  failed: {trial.error}" if trial.error else ""
        weights = "  ".join(f"{trial.weights.get(name, math.nan):{widths[name]}.4g}" for name in names)
        lines.append(f"  {weights}  {trial.step:5d}  {score:>6}{mark}")
    return "\n".join([*lines, f"Take the winner over: mert sweep --apply {sweep.id}"])


def _standing(trial: Trial) -> tuple[bool, int, float]:
    return trial.error is None, trial.step, trial.score if trial.score is not None else -math.inf


def read_sweep(layout: Layout, sweep_id: str) -> Sweep:
    """Read a finished sweep by its id, or ``latest``.

    Raises:
        MertError: there is none of that name; the message lists those there are.
    """
    folder = sweeps_folder(layout)
    finished = sorted(path.parent.name for path in folder.glob(f"*/{RESULT_NAME}"))  # ids begin with their time
    if not finished:
        raise MertError(f"no finished sweep in {folder}. Start one with `mert sweep`.")
    chosen = finished[-1] if sweep_id == "latest" else sweep_id
    if chosen not in finished:
        raise MertError(f"no finished sweep {sweep_id!r}; there are {', '.join(finished)} (or latest)")
    tree = json.loads((folder / chosen / RESULT_NAME).read_text(encoding="utf-8"))
    trials = [Trial(**item) for item in tree.pop("trials")]
    return Sweep(**{**tree, "winner": Trial(**tree["winner"]), "trials": trials})


def apply_winner(layout: Layout, params: Path, sweep_id: str) -> str:
    """Write a sweep's winning weights into ``runs.<run>.teachers`` of a parameter file, and nothing else.

    Every other byte stays, comments included. The file is replaced at once, or, were the result not valid, not at all.

    Returns:
        A sentence that says what was written.

    Raises:
        MertError: no such sweep, or the file has no such run.
    """
    sweep = read_sweep(layout, sweep_id)
    terms = load_config(params).run(sweep.run).teachers
    weights = {name: float(f"{weight:.{WEIGHT_DIGITS}g}") for name, weight in sweep.winner.weights.items()}
    if missing := sorted(weights.keys() - {term.teacher for term in terms}):
        raise MertError(
            f"run {sweep.run} no longer predicts {', '.join(missing)}, whose weight sweep {sweep.id} searched; "
            "search anew with `mert sweep`"
        )
    terms = [term.model_copy(update={"weight": weights.get(term.teacher, term.weight)}) for term in terms]
    text = with_weights(params.read_text(encoding="utf-8"), sweep.run, terms)
    with atomic_path(params) as temporary:
        temporary.write_text(text, encoding="utf-8")
        load_config(temporary)
    said = ", ".join(f"{name} {value:g}" for name, value in weights.items())
    return (
        f"{params.name}: runs.{sweep.run}.teachers: {said} "
        f"(sweep {sweep.id}, {sweep.task} {sweep.winner.score:.4f} after {sweep.winner.step} steps). "
        f"`dvc repro {stage_name('pretrain', sweep.run)}` trains with them."
    )


def with_weights(text: str, run: str, terms: list[LossTerm]) -> str:
    """Return a parameter file's text with the teachers' weights of a named run.

    Spliced in at the places the parser reports: a YAML writer would also rewrite numbers and nulls elsewhere.
    """
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    run_node = _child(_child(tree, "runs"), run)
    if not isinstance(run_node, yaml.MappingNode):
        raise MertError(f"the parameters have no mapping runs.{run} to write weights into")
    present = _child(run_node, "teachers")
    splices: list[tuple[int, int, str]] = []
    if isinstance(present, yaml.SequenceNode):
        weights = {term.teacher: term.weight for term in terms}
        for item in present.value:
            name, node = _child(item, "teacher"), _child(item, "weight")
            if name is None:
                continue
            weight = repr(weights[name.value])
            if node is not None:
                splices.append((node.start_mark.index, node.end_mark.index, weight))
            else:  # the default, which stands beside the name from now on
                between = ", " if item.flow_style else f"\n{' ' * item.start_mark.column}"
                splices.append((name.end_mark.index, name.end_mark.index, f"{between}weight: {weight}"))
    else:
        entries = (f"{{teacher: {term.teacher}, targets: {term.targets}, weight: {term.weight!r}}}" for term in terms)
        line = f"teachers: [{', '.join(entries)}]"
        if run_node.flow_style:
            place = run_node.end_mark.index - 1
            splices.append((place, place, f", {line}" if run_node.value else line))
        else:
            place = run_node.start_mark.index
            splices.append((place, place, f"{line}\n{' ' * run_node.start_mark.column}"))
    for start, end, new in sorted(splices, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
