"""The training loop, top to bottom. The same code runs in this process, in a Ray worker and in a sweep's trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.parallel import in_order, single_threads
from mert_core.training.batch import Batch
from mert_core.training.batches import CropSource, Loader, Update
from mert_core.training.callbacks import Observer
from mert_core.training.checkpoint import Checkpoints, Progress, StateStore
from mert_core.training.cost import CostMeter, training_flops
from mert_core.training.distributed import clip_gradients, is_sharded, no_sync, replicate, shard
from mert_core.training.health import MEASURED_CLIPS, Action, HealthPolicy, HealthState, ModelHealth, model_health
from mert_core.training.loss import Losses, Objective, Sums, add_sums, codebook_terms, mean_terms, sum_over_workers
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig


OPTIONS = ("activation_checkpointing", "compile", "sharding")
"""Parameters that change how a run is executed, but not its states' format nor, except for rounding, its result."""


class Engine:
    """Prepares an objective for a worker, in place, and runs it there. An optimizer must be built afterwards.

    Args:
        params: precision, ``OPTIONS`` and the gradients' largest norm.
        objective: student and heads on the CPU, the same on every worker.
        worker: rank and device of this process.

    Raises:
        MertError: the objective is to be sharded, but there is one worker alone.
    """

    def __init__(self, params: PretrainConfig, objective: Objective, worker: Worker) -> None:
        self._params, self._objective, self._worker = params, objective, worker
        encoder = objective.encoder
        encoder.feature_extractor.recompute = encoder.encoder.recompute = params.activation_checkpointing
        if params.compile:
            # The layers alone: they have one shape, so that one graph serves all of them, and layer drop, the choice
            # of masked frames and the CQT stay outside.
            for layer in encoder.encoder.layers:
                layer.compile(dynamic=False)
        distribute = {"none": replicate, "full": shard}[params.sharding]
        self._module = distribute(objective, worker)

    def losses(self, batch: Batch, targets: dict[str, Tensor]) -> Losses:
        """Return a micro-batch's losses, computed in the run's precision."""
        with torch.autocast(self._worker.device.type, torch.bfloat16, enabled=self._params.precision == "bf16"):
            return self._module(batch, targets)

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
        device, encoder = self._worker.device, self._objective.encoder.encoder
        if is_sharded(self._module):
            encoder.draws = torch.Generator().manual_seed(_number(seed, step, 0))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_number(seed, step, self._worker.rank))
            yield


def _number(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])


def build_optimizer(params: PretrainConfig, model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over all trained parameters; the decay is decoupled and applies to every one, as in fairseq."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=params.learning_rate,
        betas=(params.adam_betas[0], params.adam_betas[1]),
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def learning_rate(params: PretrainConfig, step: int) -> float:
    """Return the learning rate of update ``step`` (the first is 1): linear up to the peak, linear down to 0."""
    if step < params.warmup_steps:
        return params.learning_rate * step / params.warmup_steps
    left = params.decay_steps - step
    return params.learning_rate * max(0.0, left / (params.decay_steps - params.warmup_steps))


REFERENCE_CROPS = 512


@torch.no_grad()
def validate(
    objective: Objective, source: CropSource, worker: Worker, *, batches: int, clips: int, read_ahead: int = 1
) -> dict[str, float]:
    """Return all terms, with those of each codebook, over the fixed validation batches.

    The student hears the crops without noise mixture, so that runs with different mixtures compare: the source must be
    built with ``corrupt=False``, and then a run that trains on one random codebook at a time predicts all. Batches are
    dealt out to the workers, who all take equally many, as sharded layers need; surplus ones are not counted.
    """
    was_training = objective.training
    objective.eval()
    own = range(worker.rank, batches + worker.rank, worker.world)
    numbers = [min(number, batches - 1) for number in own]

    def cut(number: int) -> Batch:
        return source.batch(number * clips, clips, range(clips))

    sums: Sums | None = None
    with single_threads(workers=read_ahead) as pool:
        for due, number, batch in zip(own, numbers, in_order(pool, cut, numbers, read_ahead), strict=True):
            batch = batch.to(worker.device)
            more = objective(batch, source.target_set(batch)).sums
            if number != due:  # a surplus one
                more = {name: torch.zeros_like(value) for name, value in more.items()}
            sums = add_sums(sums, more)
    objective.train(was_training)
    assert sums is not None
    sums = sum_over_workers(sums, worker)
    return mean_terms(sums, objective) | codebook_terms(sums, objective.specs)


def unigram_cross_entropy(
    train: CropSource, valid: CropSource, crops: int, device: torch.device
) -> dict[str, list[float]]:
    """Return, per teacher and codebook, the nats that guessing each validation code by its frequency in training costs.

    A student below this line has learned something from the music around the mask. Frequencies come from the first
    512 training crops, with one added to each count.

    Args:
        train: crops to count codes in.
        valid: crops whose codes are guessed.
        crops: number of validation crops, from the first on.
        device: device of the teachers.
    """
    reference = np.arange(min(REFERENCE_CROPS, len(train)), dtype=np.int64)
    fixed = np.arange(crops, dtype=np.int64)
    nats = {}
    for name, kind in train.target_set.codes.items():
        counted, guessed = _codes(train, name, reference, device), _codes(valid, name, fixed, device)
        nats[name] = [_cross_entropy(counted[..., k], guessed[..., k], kind.entries) for k in range(kind.codebooks)]
    return nats


def _codes(source: CropSource, teacher: str, positions: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    """Return a teacher's codes (crops, frames, codebooks), without reading the sound where they are stored."""
    if (stored := source.target_set.stored.get(teacher)) is not None:
        rows, offsets = source.locate(positions)
        return stored.read(rows, offsets // HOP_SAMPLES, source.frames)
    batches = (source.batch(position, 1, range(1)).to(device) for position in positions.tolist())
    return np.concatenate([source.target_set(batch, [teacher])[teacher].cpu().numpy() for batch in batches])


def _cross_entropy(counted: NDArray[np.int64], guessed: NDArray[np.int64], entries: int) -> float:
    counts = np.bincount(counted.ravel(), minlength=entries) + 1.0
    return float(-np.log(counts / counts.sum())[guessed.ravel()].mean())


@torch.no_grad()
def spectra_example(objective: Objective, source: CropSource, worker: Worker) -> dict[str, NDArray[np.generic]]:
    """Return one validation crop's ``mask`` (frames,), ``true_NAME`` and ``predicted_NAME`` spectra (frames, bins).

    All workers must call this together.
    """
    was_training = objective.training
    objective.eval()
    batch = source.batch(0, 1, range(1)).to(worker.device)
    true = source.target_set(batch, source.target_set.spectra)
    predicted = objective.guessed_spectra(batch.noisy, batch.mask)
    example: dict[str, NDArray[np.generic]] = {"mask": batch.mask[0].cpu().numpy()}
    for name in source.target_set.spectra:
        example[f"true_{name}"] = true[name][0].float().cpu().numpy()
        example[f"predicted_{name}"] = predicted[name][0].float().cpu().numpy()
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
    worker: Worker,
    states: StateStore | None,
    observer: Observer,
    report: Report | None = None,
    read_ahead: int = 1,
) -> tuple[Progress, dict[str, Any]]:
    """Train until ``max_steps``, going on from the newest resume state if there is one.

    Args:
        params: the run's parameters; all but the student's shape and the corruption of crops are used here.
        objective: student and heads, freshly initialized, the same on every worker.
        train_source: crops to learn from; its teachers are on the worker's device.
        valid_source: crops to validate on, without mixture.
        seed: seed of dropout and layer drop.
        worker: rank and device of this process.
        states: folder of resume states; None writes none.
        observer: receives progress, metrics and notes from the leading worker.
        report: callable after each validation, which may end the run; see ``Report``.
        read_ahead: updates that are prepared ahead; changes no result.

    Returns:
        The progress, whose curve ends with a validation at the last step, and the cost meter's card.

    Raises:
        MertError: data cannot be read, or a fault ends the run (``pretrain.health``); the last resume state is intact.
    """
    engine = Engine(params, objective.train(), worker)
    optimizer = build_optimizer(params, objective)
    checkpoints = Checkpoints(states, objective, optimizer, worker, observer)
    progress = checkpoints.resume(seed)
    policy = HealthPolicy(params.health, progress.health)
    meter = _cost_meter(objective, train_source, worker, progress)
    target_set = train_source.target_set
    stopped = False
    with Loader(train_source, worker, params.global_batch_size, params.local_batch_size, read_ahead) as loader:
        if progress.step == 0:
            checkpoints.save(progress)  # to roll back to
        meter.restart()
        while progress.step < params.max_steps and not stopped:
            step = progress.step + 1
            with meter.waiting():
                update = _next_update(loader, progress, params.max_steps - step, checkpoints)
                batches = [batch.to(worker.device) for batch in update.batches]
            counts = torch.tensor(
                [update.masked_frames, update.sounding_clips], dtype=torch.float64, device=worker.device
            )
            masked_frames, sounding_clips = worker.sum(counts).tolist()

            # Forward and backward, micro-batch by micro-batch.
            sums: Sums | None = None
            with engine.update(seed, step):
                for number, batch in enumerate(batches):
                    last = number == len(batches) - 1
                    targets = target_set(batch)
                    with engine.no_sync(last):
                        losses = engine.losses(batch, targets)
                        # workers' gradients are averaged, the loss is a sum over all masked frames of all workers
                        (losses.weighted * (worker.world / masked_frames)).backward()
                    sums = add_sums(sums, losses.sums)
            assert sums is not None
            sums = sum_over_workers(sums, worker)
            terms = mean_terms(sums, objective)
            norm = engine.clip()

            # The update is made, if the health policy finds nothing against it.
            progress.position += loader.clips
            meter.count(loader.clips, masked_frames)
            action = policy.judge_update(step, terms["loss"], progress.first_loss, norm, sounding_clips)
            _tell(action, step, policy.state, worker, observer)
            if action.makes_update:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(params, step) * policy.state.rate_factor
                optimizer.step()
                progress.first_loss = progress.first_loss if progress.first_loss is not None else terms["loss"]
                progress.window = add_sums(progress.window, sums)
            optimizer.zero_grad()

            # Before a state is written, the model itself is examined: states with a fault are not rolled back to.
            saving = states is not None and step % params.checkpoint_every == 0 and step < params.max_steps
            if not action.sets_back:
                progress.step = step
                if step % params.health.every == 0 or saving:
                    examined = batches[0].first(MEASURED_CLIPS)
                    codes = target_set(examined, target_set.codes)
                    measured = model_health(objective, examined, codes, worker)
                    action = _judge_model(measured, policy, params.warmup_steps, step, worker, observer)
                    meter.restart()
            if action.sets_back:
                progress = _set_back(action, terms, norm, progress, params.health.rate_factor, checkpoints)
                policy.state = progress.health
                meter.restart()
                continue

            # Figures, validation and resume state, each when it is due.
            if worker.leads:
                observer.progress(step, terms["loss"], meter.audio_hours_per_second)
            if (step % params.log_every == 0 or step == params.max_steps) and progress.window is not None:
                logged = mean_terms(progress.window, objective)
                progress.window = None
                _record(progress, "train", logged)
                speed = meter.read()
                if worker.leads:
                    observer.metrics({f"train/{k}": v for k, v in logged.items()} | speed, step)
                    rate = optimizer.param_groups[0]["lr"]
                    observer.metrics({"train/gradient_norm": norm, "train/learning_rate": rate}, step)
            if step % params.validate_every == 0:
                stopped = _validate(params, objective, valid_source, worker, progress, observer, report, read_ahead)
                meter.restart()
            if saving:
                checkpoints.save(progress)
                meter.restart()
    if not any(row[0] == progress.step and row[1] == "valid" for row in progress.curve):
        _validate(params, objective, valid_source, worker, progress, observer, report, read_ahead)
    meter.restart()
    return progress, meter.card()


def _cost_meter(objective: Objective, source: CropSource, worker: Worker, progress: Progress) -> CostMeter:
    shape, samples = objective.encoder.config, source.crop_samples
    codebooks = [(kind.codebooks, kind.entries) for kind in source.target_set.codes.values()]
    bins = sum(kind.bins for kind in source.target_set.spectra.values())

    def clip_flops(masked_frames: float) -> float:
        return training_flops(shape, samples, masked_frames, codebooks, bins)

    return CostMeter(progress.totals, worker, samples / SAMPLE_RATE, clip_flops)


def _next_update(loader: Loader, progress: Progress, left: int, checkpoints: Checkpoints) -> Update:
    try:
        return loader.take(progress.position, left)
    except MertError as error:
        raise MertError(f"training stopped after step {progress.step}: {error} {checkpoints.intact()}.") from error


def _tell(action: Action, step: int, state: HealthState, worker: Worker, observer: Observer) -> None:
    """Say what is wrong, and what is done about it, to person and tracker."""
    if not worker.leads:
        return
    if action.text and action.name != "stop":
        done = {"warn": "training goes on", "skip": "this update is skipped", "rollback": "rolling back"}
        observer.note(f"{action.text}: {done[action.name]}")
    if action.faults:
        counts = {"health/interventions": float(state.interventions), "health/rate_factor": state.rate_factor}
        observer.metrics(counts | {f"health/fault/{name}": 1.0 for name in action.faults}, step)


def _judge_model(
    measured: ModelHealth | None, policy: HealthPolicy, warmup_steps: int, step: int, worker: Worker, observer: Observer
) -> Action:
    """Judge the measured model; while the learning rate still rises, predictions may be anything."""
    if measured is not None and worker.leads:
        observer.metrics(measured.metrics(), step)
    if measured is not None and step <= warmup_steps:
        return Action("go on")
    action = policy.judge_model(step, measured)
    _tell(action, step, policy.state, worker, observer)
    return action


def _set_back(
    action: Action,
    terms: dict[str, float],
    norm: float,
    progress: Progress,
    rate_factor: float,
    checkpoints: Checkpoints,
) -> Progress:
    """Return to an earlier state, or say that the run is lost."""
    if action.name == "rollback":
        earlier = checkpoints.roll_back(progress, rate_factor)
        if earlier is not None:
            return earlier
    figures = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
    raise MertError(
        f"training stopped at {action.text} ({figures}; gradient norm {norm:.4g}). {checkpoints.intact()}. Lower "
        "pretrain.learning_rate or pretrain.clip_norm, or lengthen pretrain.warmup_steps; pretrain.health says what "
        "counts as a fault and what is done about it."
    )


def _record(progress: Progress, split: str, terms: dict[str, float]) -> None:
    progress.curve.extend((progress.step, split, name, value) for name, value in terms.items())


def _validate(
    params: PretrainConfig,
    objective: Objective,
    source: CropSource,
    worker: Worker,
    progress: Progress,
    observer: Observer,
    report: Report | None,
    read_ahead: int,
) -> bool:
    """Validate, record the terms, and return whether the run is to end here."""
    terms = validate(
        objective, source, worker, batches=params.validate_batches, clips=params.validation_clips, read_ahead=read_ahead
    )
    _record(progress, "valid", terms)
    if worker.leads:
        observer.metrics({f"valid/{name}": value for name, value in terms.items()}, progress.step)
    if report is not None:
        try:
            report(progress.step, terms, objective.encoder)
        except StopTraining:
            return True
    return False
