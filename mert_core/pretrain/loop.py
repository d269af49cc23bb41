"""The training loop, top to bottom. The same code runs in this process, in a Ray worker and in a sweep's trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.pretrain.batch import Batch
from mert_core.pretrain.checkpoints import Checkpoints
from mert_core.pretrain.data import CropSource
from mert_core.pretrain.engine import Engine
from mert_core.pretrain.flops import training_flops
from mert_core.pretrain.health import vitals
from mert_core.pretrain.ledger import Ledger
from mert_core.pretrain.loader import Loader, Update
from mert_core.pretrain.objective import Objective
from mert_core.pretrain.observe import Observer
from mert_core.pretrain.optimiser import build_optimiser, learning_rate
from mert_core.pretrain.place import Place
from mert_core.pretrain.policy import Policy, Verdict
from mert_core.pretrain.state import Progress, StateStore
from mert_core.pretrain.tally import no_sums, tally, terms
from mert_core.pretrain.validate import validate

if TYPE_CHECKING:
    from mert_core.config import Pretrain

Report = Callable[[int, dict[str, float], MertModel], None]
"""Called after each validation with step, terms and encoder; may raise ``StopTraining``. For runs of one worker."""


class StopTraining(Exception):
    """Raised by a ``report`` callable: end here, as if ``max_steps`` were reached."""


def train(
    params: Pretrain,
    objective: Objective,
    train_source: CropSource,
    valid_source: CropSource,
    *,
    seed: int,
    place: Place,
    states: StateStore | None,
    observer: Observer,
    report: Report | None = None,
    read_ahead: int = 1,
) -> tuple[Progress, dict[str, Any]]:
    """Train until ``max_steps``, going on from the newest resume state if there is one.

    Args:
        params: of the run.
        objective: freshly initialised, the same on every worker.
        train_source: crops to learn from.
        valid_source: crops to validate on, without mixture.
        seed: of dropout and layer drop.
        place: of this worker.
        states: where resume states lie; None keeps none.
        observer: is told of progress and metrics by the leading worker.
        report: see ``Report``.
        read_ahead: updates that are prepared ahead; changes no result.

    Returns:
        The progress, whose curve ends with a validation at the last step, and the cost ledger's card.

    Raises:
        MertError: data cannot be read, or a fault ends the run (``pretrain.health``); the last resume state is intact.
    """
    engine = Engine(params, objective.train(), place)
    optimiser = build_optimiser(params, objective)
    checkpoints = Checkpoints(states, objective, optimiser, place, observer)
    progress = checkpoints.resume(seed)
    policy = Policy(params.health, progress.guard)
    ledger = _ledger(objective, train_source, place, progress)
    stopped = False
    with Loader(params, train_source, place, read_ahead) as loader:
        if progress.step == 0:
            checkpoints.save(progress)  # to roll back to
        ledger.restart()
        while progress.step < params.max_steps and not stopped:
            step = progress.step + 1
            with ledger.waiting():
                update = _take(loader, progress, params.max_steps - step, checkpoints)
                batches = [batch.to(place.device) for batch in update.batches]
            counts = torch.tensor([update.masked_frames, update.sounding], dtype=torch.float64, device=place.device)
            masked_frames, sounding_clips = place.sum(counts).tolist()

            sums = no_sums(objective.teaching, place.device)
            with engine.update(seed, step):
                for number, batch in enumerate(batches):
                    last = number == len(batches) - 1
                    with engine.no_sync(last):
                        losses = engine.losses(batch)
                        # workers' gradients are averaged, the loss is a sum over all masked frames of all workers
                        (losses.weighted * (place.world / masked_frames)).backward()
                    sums += tally(losses, batch.masked_frames)
            values = terms(place.sum(sums), objective)
            norm = engine.clip()

            progress.position += loader.clips
            ledger.count(loader.clips, masked_frames)
            verdict = policy.judge_update(step, values["loss"], progress.first_loss, norm, sounding_clips)
            _tell(verdict, step, policy, place, observer)
            if verdict.makes_update:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(params, step) * policy.guard.rate_factor
                optimiser.step()
                progress.first_loss = progress.first_loss if progress.first_loss is not None else values["loss"]
                progress.window = sums.cpu() if progress.window is None else progress.window + sums.cpu()
            optimiser.zero_grad()
            saving = states is not None and step % params.checkpoint_every == 0 and step < params.max_steps
            if not verdict.sets_back:
                progress.step = step
                if step % params.health.every == 0 or saving:
                    verdict = _examine(objective, batches[0], policy, params, step, place, observer)
                    ledger.restart()
            if verdict.sets_back:
                progress = _set_back(verdict, values, norm, progress, params, checkpoints)
                policy.guard = progress.guard
                ledger.restart()
                continue

            if place.leads:
                observer.progress(step, values["loss"], ledger.audio_hours_per_second)
            if (step % params.log_every == 0 or step == params.max_steps) and progress.window is not None:
                logged = terms(progress.window, objective)
                progress.window = None
                _record(progress, "train", logged)
                speed = ledger.read()
                if place.leads:
                    observer.metrics({f"train/{k}": v for k, v in logged.items()} | speed, step)
                    rate = optimiser.param_groups[0]["lr"]
                    observer.metrics({"train/gradient_norm": norm, "train/learning_rate": rate}, step)
            if step % params.validate_every == 0:
                stopped = _validate(params, objective, valid_source, place, progress, observer, report, read_ahead)
                ledger.restart()
            if saving:
                checkpoints.save(progress)
                ledger.restart()
    if not any(row[0] == progress.step and row[1] == "valid" for row in progress.curve):
        _validate(params, objective, valid_source, place, progress, observer, report, read_ahead)
    ledger.restart()
    return progress, ledger.card()


def _ledger(objective: Objective, source: CropSource, place: Place, progress: Progress) -> Ledger:
    teaching, shape, samples = objective.teaching, objective.encoder.config, source.crop_samples
    codes, bins = list(teaching.codes.values()), sum(kind.bins for kind in teaching.spectra.values())
    books = [(kind.codebooks, kind.entries) for kind in codes]

    def clip_flops(masked_frames: float) -> float:
        return training_flops(shape, samples, masked_frames, books, bins)

    return Ledger(progress.totals, place, samples / SAMPLE_RATE, clip_flops)


def _tell(verdict: Verdict, step: int, policy: Policy, place: Place, observer: Observer) -> None:
    """Say what is wrong, and what is done about it, to person and tracker."""
    if not place.leads:
        return
    if verdict.text and verdict.action != "stop":
        done = {"warn": "training goes on", "skip": "this update is skipped", "rollback": "rolling back"}
        observer.note(f"{verdict.text}: {done[verdict.action]}")
    if verdict.faults:
        guard = policy.guard
        counts = {"health/interventions": float(guard.interventions), "health/rate_factor": guard.rate_factor}
        observer.metrics(counts | {f"health/fault/{name}": 1.0 for name in verdict.faults}, step)


def _examine(
    objective: Objective, batch: Batch, policy: Policy, params: Pretrain, step: int, place: Place, observer: Observer
) -> Verdict:
    """Measure the model and judge it; while the learning rate still rises, predictions may be anything."""
    measured = vitals(objective, batch, place)
    if measured is not None and place.leads:
        observer.metrics(measured.metrics(), step)
    if measured is not None and step <= params.warmup_steps:
        return Verdict("go on")
    verdict = policy.judge_model(step, measured)
    _tell(verdict, step, policy, place, observer)
    return verdict


def _take(loader: Loader, progress: Progress, left: int, checkpoints: Checkpoints) -> Update:
    try:
        return loader.take(progress.position, left)
    except MertError as error:
        raise MertError(f"training stopped after step {progress.step}: {error} {checkpoints.intact()}.") from error


def _set_back(
    verdict: Verdict,
    values: dict[str, float],
    norm: float,
    progress: Progress,
    params: Pretrain,
    checkpoints: Checkpoints,
) -> Progress:
    """Return to an earlier state, or say that the run is lost."""
    if verdict.action == "rollback":
        earlier = checkpoints.roll_back(progress, params.health.rate_factor)
        if earlier is not None:
            return earlier
    named = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    raise MertError(
        f"training stopped at {verdict.text} ({named}; gradient norm {norm:.4g}). {checkpoints.intact()}. Lower "
        "pretrain.learning_rate or pretrain.clip_norm, or lengthen pretrain.warmup_steps; pretrain.health says what "
        "counts as a fault and what is done about it."
    )


def _record(progress: Progress, split: str, values: dict[str, float]) -> None:
    progress.curve.extend((progress.step, split, name, value) for name, value in values.items())


def _validate(
    params: Pretrain,
    objective: Objective,
    source: CropSource,
    place: Place,
    progress: Progress,
    observer: Observer,
    report: Report | None,
    read_ahead: int,
) -> bool:
    values = validate(params, objective, source, place, read_ahead)
    _record(progress, "valid", values)
    if place.leads:
        observer.metrics({f"valid/{name}": value for name, value in values.items()}, progress.step)
    if report is not None:
        try:
            report(progress.step, values, objective.encoder)
        except StopTraining:
            return True
    return False
