"""The stage ``pretrain``: a named run from the corpus and its targets to a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.data.record import Record, read_record, write_record
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_json
from mert_core.model.checkpoint import CONFIG_NAME, fingerprint
from mert_core.training.callbacks import BarObserver, SilentObserver
from mert_core.training.checkpoint import FORMAT, StateStore
from mert_core.training.distributed import OPTIONS
from mert_core.training.model_card import write_card
from mert_core.training.run import Job, open_inputs, work
from mert_core.training.trainer import Report
from mert_core.training.worker import Worker, choose_precision

if TYPE_CHECKING:
    from mert_core.config import Config, PretrainConfig, WarmStart
    from mert_core.paths import Layout
    from mert_core.tracking import Tracker


def run(config: Config, layout: Layout, tracker: Tracker, run_name: str) -> Record:
    """Train a named run and write its folder; an interrupted run goes on where it was.

    Raises:
        MertError: an input is missing, there is no CUDA device, the training diverged or a worker failed.
    """
    params = config.run(run_name)
    inputs = _input_ids(config, layout, params)
    if params.workers == 0:  # before any work; Ray's workers look for themselves
        choose_precision(params.precision, Worker.alone(params.device).device)
    states = StateStore(_resume_folder(config, layout, run_name, inputs), params.checkpoint_keep)
    states.begin(tracker.run_id)
    with atomic_folder(layout.model(run_name)) as folder:
        job = _job(config, layout, params, config.worker_threads(params), folder, states.folder)
        with BarObserver(tracker, run_name, params.max_steps) as observer:
            if params.workers == 0:
                facts = work(job, Worker.alone(params.device), observer)
            else:
                from mert_core.training.ray_train import work_on_ray

                facts = work_on_ray(job, observer)
        cost = facts.pop("cost")  # differs from run to run, so it is no part of the record
        tracker.metrics({f"total/{name}": value for name, value in cost.items() if name != "device"}, facts["steps"])
        unigram = facts["unigram_cross_entropy"]
        tracker.metrics({f"reference/unigram/{name}": nats for name, nats in unigram.items()}, facts["steps"])
        record = write_record(
            folder,
            stage="pretrain",
            kind="checkpoint",
            run=run_name,
            inputs=inputs,
            params={"threads": config.threads, "pretrain": params.model_dump(mode="json")},
            facts=facts,
        )
    tracker.artifact(write_card(layout.cards, record, cost), "card.md")
    states.clear()
    return record


def resumable_run_id(config: Config, layout: Layout, run_name: str) -> str | None:
    """Return the tracker's run that an interrupted training wrote to, so that it can be continued, or None."""
    try:
        inputs = _input_ids(config, layout, config.run(run_name))
    except MertError:
        return None  # the stage itself says what is missing
    return StateStore(_resume_folder(config, layout, run_name, inputs), 1).tracker_run_id()


def run_trial(config: Config, layout: Layout, params: PretrainConfig, report: Report) -> dict[str, Any]:
    """Train in this process without resume states, for one trial of a sweep; see `mert_core.training.trainer.Report`.

    The process takes the clips of all the run's workers, and the whole model.
    """
    params = params.model_copy(update={"workers": 0, "sharding": "none"})
    job = _job(config, layout, params, config.threads, None, None)
    return work(job, Worker.alone(params.device), SilentObserver(), report)


def _input_ids(config: Config, layout: Layout, params: PretrainConfig) -> dict[str, str]:
    """Return the record ids of a run's inputs, by role; of a teacher only where it computes targets in the step."""
    from mert_core.teachers.stage import open_teacher

    corpus = read_record(layout.corpus)
    inputs = {"corpus": corpus.id}
    for term in params.teachers:
        name = term.teacher
        if not term.weight:
            continue
        if term.targets != "stored":
            inputs[f"teacher/{name}"] = open_teacher(config, layout, name)[1]
            continue
        targets = read_record(layout.targets(name))
        inputs[f"targets/{name}"] = targets.id
        expected = {"corpus": corpus.id}
        if layout.teacher(name).exists():
            expected["teacher"] = read_record(layout.teacher(name)).id
        for role, identity in expected.items():
            if targets.inputs.get(role) != identity:
                raise MertError(
                    f"the targets in {layout.targets(name)} were made from another {role} than the one that lies here "
                    f"now. Run `dvc repro`, or `mert targets {name}`."
                )
    return inputs | start_input(params.start, layout.root)


def _job(
    config: Config, layout: Layout, params: PretrainConfig, threads: int, out: Path | None, resume: Path | None
) -> Job:
    """Return a run as its workers receive it."""
    assert params.seed is not None  # `Config.run` has filled it in
    inputs, start = partial(open_inputs, config, layout, params), start_folder(params.start, layout.root)
    return Job(params, inputs, params.seed, threads, out, resume, start, config.storage.read_ahead)


def start_folder(start: WarmStart | None, root: Path) -> Path | None:
    """Return the absolute folder of a checkpoint to start from; relative paths begin at ``root``."""
    return (root / start.folder).resolve() if start is not None else None


def start_input(start: WarmStart | None, root: Path) -> dict[str, str]:
    """Return the record's input ``start``, the hash of the checkpoint to start from; nothing without one.

    The hash stands in ``params.yaml``, so that another checkpoint in the same folder is another run to DVC, too.

    Raises:
        MertError: the folder is missing, or holds something else than the parameters say.
    """
    folder = start_folder(start, root)
    if folder is None or start is None:
        return {}
    if not (folder / CONFIG_NAME).is_file():
        raise MertError(f"pretrain.start.folder: {folder} holds no {CONFIG_NAME}; make one with `mert import`")
    sha256 = fingerprint(folder)
    if sha256 != start.sha256:
        raise MertError(
            f"the checkpoint in {folder} hashes to {sha256}, but pretrain.start.sha256 is {start.sha256}. "
            "Put the first in params.yaml if this is the checkpoint you mean."
        )
    return {"start": sha256}


def _resume_folder(config: Config, layout: Layout, run_name: str, inputs: dict[str, str]) -> Path:
    params = config.run(run_name).model_dump(mode="json", exclude=set(OPTIONS))  # a run may go on with others
    key = sha256_json({"params": params, "inputs": inputs, "threads": config.threads, "format": FORMAT})
    return layout.resume / f"pretrain-{run_name}-{key[:16]}"
