"""The training loop, top to bottom. The same code runs in this process, in a Ray worker and in a sweep's trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.parallel import in_order, single_threads
from mert_core.training.batch import Batch
from mert_core.training.batches import CropSource, Loader, Update
from mert_core.training.callbacks import Observer
from mert_core.training.checkpoint import Checkpoints, Progress, StateStore
from mert_core.training.cost import CostMeter, training_flops
from mert_core.training.distributed import clip_gradients, is_sharded, no_sync, replicate, shard
from mert_core.training.health import Action, HealthPolicy, vitals
from mert_core.training.loss import Losses, Objective, codebook_terms, no_sums, tally, terms
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig


OPTIONS = ("activation_checkpointing", "compile", "sharding")
"""Parameters that change how a run is executed, but not its states' format nor, except for rounding, its result."""


class Engine:
    """Prepares an objective for a place, in place, and runs it there. An optimiser must be built afterwards.

    Args:
        params: of the run.
        objective: on the CPU, the same on every worker.
        place: of this worker.

    Raises:
        MertError: the objective is to be sharded, but there is one worker alone.
    """

    def __init__(self, params: PretrainConfig, objective: Objective, place: Worker) -> None:
        self._params, self._objective, self._place = params, objective, place
        encoder = objective.encoder
        encoder.feature_extractor.recompute = encoder.encoder.recompute = params.activation_checkpointing
        if params.compile:
            # The layers alone: they have one shape, so that one graph serves all of them, and layer drop, the choice
            # of masked frames and the CQT stay outside.
            for layer in encoder.encoder.layers:
                layer.compile(dynamic=False)
        spread = {"none": replicate, "full": shard}[params.sharding]
        self._module = spread(objective, place)

    def losses(self, batch: Batch) -> Losses:
        """Return a micro-batch's losses, computed in the run's precision."""
        with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._params.precision == "bf16"):
            return self._module(batch)

    def no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Keep gradients on their worker, but for the last micro-batch of an update."""
        return no_sync(self._module, last)

    def clip(self) -> float:
        """Clip the gradients, and return their norm before that."""
        return clip_gradients(self._objective, self._params.clip_norm)

    @contextmanager
    def update(self, seed: int, step: int) -> Iterator[None]:
        """Return what forward and backward passes of an update run in.

        Dropout and layer drop become a function of (seed, step, rank), so that resuming needs no generator state.
        Sharded layers are run by all workers or by none: then all of them draw the first one's layer drop.
        """
        device, encoder = self._place.device, self._objective.encoder.encoder
        if is_sharded(self._module):
            encoder.draws = torch.Generator().manual_seed(_number(seed, step, 0))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_number(seed, step, self._place.rank))
            yield


def _number(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])


def build_optimiser(params: PretrainConfig, model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over all trained parameters; the decay is decoupled and applies to every one, as in fairseq."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=params.learning_rate,
        betas=params.adam_betas,
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def learning_rate(params: PretrainConfig, step: int) -> float:
    """Return the learning rate of update ``step`` (the first is 1): linear up to the peak, linear down to 0."""
    if step < params.warmup_steps:
        return params.learning_rate * step / params.warmup_steps
    left = params.schedule_steps - step
    return params.learning_rate * max(0.0, left / (params.schedule_steps - params.warmup_steps))


REFERENCE_CROPS = 512


@torch.no_grad()
def validate(
    params: PretrainConfig, objective: Objective, source: CropSource, place: Worker, read_ahead: int = 1
) -> dict[str, float]:
    """Return all terms, with those of each codebook, over the fixed validation batches.

    The student hears the crops without noise mixture, so that runs with different mixtures compare; it must be built
    with ``corrupt=False``, and then a run that trains on one random codebook at a time is asked for all. Batches are
    dealt out to the workers, who all take equally many, as sharded layers need; surplus ones are not counted.
    """
    was_training = objective.training
    objective.eval()
    clips = params.batch_clips
    total = no_sums(objective.teaching, place.device)
    own = range(place.rank, params.validate_batches + place.rank, place.world)
    numbers = [min(number, params.validate_batches - 1) for number in own]

    def cut(number: int) -> Batch:
        return source.batch(number * clips, clips, range(clips))

    with single_threads(workers=read_ahead) as pool:
        for place_in, number, batch in zip(own, numbers, in_order(pool, cut, numbers, read_ahead), strict=True):
            losses = objective(batch.to(place.device))
            if number == place_in:
                total += tally(losses, batch.masked_frames)
    objective.train(was_training)
    place.sum(total)
    return terms(total, objective) | codebook_terms(total, objective.teaching)


def unigram_cross_entropy(train: CropSource, valid: CropSource, params: PretrainConfig) -> dict[str, list[float]]:
    """Return, per teacher and codebook, the nats that guessing each validation code by its frequency in training costs.

    A student below this line has learned something from the music around the mask. Frequencies come from the first
    512 training crops, with one added to each count; the codes are all those of the fixed validation crops.
    """
    first = np.arange(min(REFERENCE_CROPS, len(train)), dtype=np.int64)
    fixed = np.arange(params.validate_batches * params.batch_clips, dtype=np.int64)
    found = {}
    for name, kind in train.teaching.codes.items():
        seen, asked = train.codes(name, first), valid.codes(name, fixed)
        found[name] = [_cross_entropy(seen[..., k], asked[..., k], kind.entries) for k in range(kind.codebooks)]
    return found


def _cross_entropy(seen: NDArray[np.int64], asked: NDArray[np.int64], entries: int) -> float:
    counts = np.bincount(seen.ravel(), minlength=entries) + 1.0
    return float(-np.log(counts / counts.sum())[asked.ravel()].mean())


@torch.no_grad()
def spectra_example(objective: Objective, source: CropSource, place: Worker) -> dict[str, NDArray[np.generic]]:
    """Return one validation crop's ``mask`` (frames,), ``true_NAME`` and ``predicted_NAME`` spectra (frames, bins).

    All workers must call this together.
    """
    was_training = objective.training
    objective.eval()
    batch = source.batch(0, 1, range(1)).to(place.device)
    truth = objective.teaching.targets(batch, objective.teaching.spectra)
    guess = objective.guessed_spectra(batch.noisy, batch.mask)
    example: dict[str, NDArray[np.generic]] = {"mask": batch.mask[0].cpu().numpy()}
    for name in objective.teaching.spectra:
        example[f"true_{name}"] = truth[name][0].float().cpu().numpy()
        example[f"predicted_{name}"] = guess[name][0].float().cpu().numpy()
    objective.train(was_training)
    return example


Report = Callable[[int, dict[str, float], MertModel], None]
"""Called after each validation with step, terms and encoder; may raise ``StopTraining``. For runs of one worker."""


class StopTraining(Exception):
    """Raised by a ``report`` callable: end here, as if ``max_steps`` were reached."""


def train(
    params: PretrainConfig,
    objective: Objective,
    train_source: CropSource,
    valid_source: CropSource,
    *,
    seed: int,
    place: Worker,
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
    policy = HealthPolicy(params.health, progress.guard)
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


def _ledger(objective: Objective, source: CropSource, place: Worker, progress: Progress) -> CostMeter:
    teaching, shape, samples = objective.teaching, objective.encoder.config, source.crop_samples
    codes, bins = list(teaching.codes.values()), sum(kind.bins for kind in teaching.spectra.values())
    books = [(kind.codebooks, kind.entries) for kind in codes]

    def clip_flops(masked_frames: float) -> float:
        return training_flops(shape, samples, masked_frames, books, bins)

    return CostMeter(progress.totals, place, samples / SAMPLE_RATE, clip_flops)


def _tell(verdict: Action, step: int, policy: HealthPolicy, place: Worker, observer: Observer) -> None:
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
    objective: Objective,
    batch: Batch,
    policy: HealthPolicy,
    params: PretrainConfig,
    step: int,
    place: Worker,
    observer: Observer,
) -> Action:
    """Measure the model and judge it; while the learning rate still rises, predictions may be anything."""
    measured = vitals(objective, batch, place)
    if measured is not None and place.leads:
        observer.metrics(measured.metrics(), step)
    if measured is not None and step <= params.warmup_steps:
        return Action("go on")
    verdict = policy.judge_model(step, measured)
    _tell(verdict, step, policy, place, observer)
    return verdict


def _take(loader: Loader, progress: Progress, left: int, checkpoints: Checkpoints) -> Update:
    try:
        return loader.take(progress.position, left)
    except MertError as error:
        raise MertError(f"training stopped after step {progress.step}: {error} {checkpoints.intact()}.") from error


def _set_back(
    verdict: Action,
    values: dict[str, float],
    norm: float,
    progress: Progress,
    params: PretrainConfig,
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
    params: PretrainConfig,
    objective: Objective,
    source: CropSource,
    place: Worker,
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
