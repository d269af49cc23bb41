"""The training loop, top to bottom. The same code runs in this process, in a Ray worker and in a sweep's trial."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.parallel import in_order, single_threads
from mert_core.training.batches import CropSource, Loader
from mert_core.training.callbacks import Observer
from mert_core.training.checkpoint import Checkpoints, Progress, StateStore
from mert_core.training.cost import CostMeter, training_flops
from mert_core.training.distributed import Engine
from mert_core.training.health import Action, judge_model, judge_update, model_health
from mert_core.training.loss import Objective, Sums, add_sums, codebook_terms, mean_terms, sum_over_workers
from mert_core.training.targets import codes_of, spectra_of
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig

Report = Callable[[int, dict[str, float], MertModel], None]
"""Called after each validation with step, terms and encoder. For runs of one worker."""


class Trainer:
    """One worker of a run, which goes on from the newest resume state if there is one.

    Args:
        params: the run's parameters; all but the student's shape and the corruption of crops are used here.
        objective: student and heads, freshly initialized, the same on every worker.
        train_source: crops to learn from; its teachers are on the worker's device.
        valid_source: crops to validate on, without mixture.
        seed: seed of dropout and layer drop.
        worker: rank and device of this process.
        states: folder of resume states; None writes none.
        observer: receives progress, metrics and notes; a silent one on all workers but the leading one.
        report: callable after each validation; see ``Report``.
        read_ahead: updates that are prepared ahead; changes no result.

    Raises:
        MertError: the objective cannot be prepared, or the resume state is of another architecture or seed.
    """

    def __init__(
        self,
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
    ) -> None:
        self.params, self.objective, self.worker = params, objective, worker
        self.train_source, self.valid_source, self.read_ahead = train_source, valid_source, read_ahead
        self.states, self.observer, self.report = states, observer, report
        self.engine = Engine(params, objective.train(), worker)
        self.optimizer = build_optimizer(params, objective)
        self.checkpoints = Checkpoints(states, objective, self.optimizer, worker, observer)
        self.progress = self.checkpoints.resume(seed)
        specs, samples = train_source.target_set.specs, train_source.crop_samples
        codebooks = [(kind.codebooks, kind.entries) for kind in codes_of(specs).values()]
        bins = sum(kind.bins for kind in spectra_of(specs).values())
        clip_flops = partial(training_flops, objective.encoder.config, samples, codes=codebooks, bins=bins)
        self.meter = CostMeter(self.progress.totals, worker, samples / SAMPLE_RATE, clip_flops)

    def train(self) -> tuple[Progress, dict[str, Any]]:
        """Train until ``max_steps``.

        Returns:
            The progress, whose curve ends with a validation at the last step, and the cost meter's card.

        Raises:
            MertError: data cannot be read, or a fault ends the run (``pretrain.health``); the last resume state is
                intact.
        """
        params, worker, optimizer, meter = self.params, self.worker, self.optimizer, self.meter
        target_set, observer = self.train_source.target_set, self.observer
        sizes = params.global_batch_size, params.local_batch_size
        with Loader(self.train_source, worker, *sizes, self.read_ahead) as loader:
            if self.progress.step == 0:
                self.checkpoints.save(self.progress)  # to roll back to
            updates = loader.updates(self.progress.position, params.max_steps - self.progress.step)
            meter.restart()
            while self.progress.step < params.max_steps:
                progress = self.progress
                step = progress.step + 1
                with meter.waiting():
                    try:
                        batches = [batch.to(worker.device) for batch in next(updates)]
                    except MertError as error:
                        state = self.checkpoints.intact()
                        raise MertError(f"training stopped after step {progress.step}: {error} {state}.") from error
                counts = [torch.stack([batch.mask.sum(), batch.clean.any(dim=1).sum()]).double() for batch in batches]
                masked_frames, sounding_clips = worker.sum(torch.stack(counts).sum(0)).tolist()

                # Forward and backward, micro-batch by micro-batch.
                sums: Sums = {}
                with self.engine.update(progress.seed, step):
                    for number, batch in enumerate(batches, 1):
                        targets = target_set(batch)
                        with self.engine.no_sync(last=number == len(batches)):
                            losses = self.engine.losses(batch, targets)
                            # workers' gradients are averaged, the loss is a sum over all masked frames of all workers
                            (losses.weighted * (worker.world / masked_frames)).backward()
                        sums = add_sums(sums, losses.sums)
                sums = sum_over_workers(sums, worker)
                terms, norm = mean_terms(sums, self.objective), self.engine.clip()

                # The update is made, if the health policy finds nothing against it.
                progress.position += params.global_batch_size
                meter.count(params.global_batch_size, masked_frames)
                first_loss, health = progress.first_loss, progress.health
                action = judge_update(params.health, health, step, terms["loss"], first_loss, norm, sounding_clips)
                self._tell(action, step)
                if action.makes_update:
                    rate = learning_rate(params, step) * health.rate_factor
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    optimizer.step()
                    progress.first_loss = terms["loss"] if first_loss is None else first_loss
                    progress.window = add_sums(progress.window, sums)
                optimizer.zero_grad()

                # Before a state is written, the model itself is examined: states with a fault are not rolled back to.
                saving = self.states is not None and step % params.checkpoint_every == 0 and step < params.max_steps
                if not action.sets_back:
                    progress.step = step
                    if step % params.health.every == 0 or saving:
                        codes = target_set(batches[0], codes_of(target_set.specs))
                        measured = model_health(self.objective, batches[0], codes, worker)
                        if measured is not None:
                            observer.metrics(measured.metrics(), step)
                        # while the learning rate still rises, predictions may be anything
                        if measured is None or step > params.warmup_steps:
                            action = judge_model(params.health, health, step, measured)
                            self._tell(action, step)
                        meter.restart()
                if action.sets_back:
                    self._set_back(action, terms, norm)
                    updates = loader.updates(self.progress.position, params.max_steps - self.progress.step)
                    meter.restart()
                    continue

                # Figures, validation and resume state, each when it is due.
                observer.progress(step, terms["loss"], meter.audio_hours_per_second)
                if (step % params.log_every == 0 or step == params.max_steps) and progress.window:
                    logged = mean_terms(progress.window, self.objective)
                    progress.window = {}
                    progress.record("train", logged)
                    observer.metrics({f"train/{name}": value for name, value in logged.items()} | meter.read(), step)
                    rate = optimizer.param_groups[0]["lr"]
                    observer.metrics({"train/gradient_norm": norm, "train/learning_rate": rate}, step)
                if step % params.validate_every == 0:
                    self._validate()
                    meter.restart()
                if saving:
                    self.checkpoints.save(progress)
                    meter.restart()
        if not any(row[:2] == (self.progress.step, "valid") for row in self.progress.curve):
            self._validate()
        meter.restart()
        return self.progress, meter.card()

    def _tell(self, action: Action, step: int) -> None:
        """Say what is wrong, and what is done about it, to person and tracker."""
        if action.text and action.name != "stop":
            done = {"warn": "training goes on", "skip": "this update is skipped", "rollback": "rolling back"}
            self.observer.note(f"{action.text}: {done[action.name]}")
        if action.faults:
            health = self.progress.health
            counts = {"health/interventions": float(health.interventions), "health/rate_factor": health.rate_factor}
            self.observer.metrics(counts | {f"health/fault/{name}": 1.0 for name in action.faults}, step)

    def _set_back(self, action: Action, terms: dict[str, float], norm: float) -> None:
        """Return to an earlier state, or say that the run is lost."""
        if action.name == "rollback":
            earlier = self.checkpoints.roll_back(self.progress, self.params.health.rate_factor)
            if earlier is not None:
                self.progress = earlier
                return
        figures = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        raise MertError(
            f"training stopped at {action.text} ({figures}; gradient norm {norm:.4g}). {self.checkpoints.intact()}. "
            "Lower pretrain.learning_rate or pretrain.clip_norm, or lengthen pretrain.warmup_steps; pretrain.health "
            "says what counts as a fault and what is done about it."
        )

    def _validate(self) -> None:
        """Validate, and record and report the terms."""
        batches, clips = self.params.validate_batches, self.params.validation_clips
        terms = validate(self.objective, self.valid_source, self.worker, batches, clips, self.read_ahead)
        self.progress.record("valid", terms)
        self.observer.metrics({f"valid/{name}": value for name, value in terms.items()}, self.progress.step)
        if self.report is not None:
            self.report(self.progress.step, terms, self.objective.encoder)


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


@torch.no_grad()
def validate(
    objective: Objective, source: CropSource, worker: Worker, batches: int, clips: int, read_ahead: int = 1
) -> dict[str, float]:
    """Return all terms, with those of each codebook, over the fixed validation batches.

    The student hears the crops without noise mixture, so that runs with different mixtures compare: the source must be
    built with ``corrupt=False``, and then a run that trains on one random codebook at a time predicts all. Batches are
    dealt out to the workers, who all take equally many, as sharded layers need; surplus ones are not counted.
    """
    was_training = objective.training
    objective.eval()
    own = range(worker.rank, batches + worker.rank, worker.world)
    positions = [min(number, batches - 1) * clips for number in own]
    sums: Sums = {}
    with single_threads(workers=read_ahead) as pool:
        cut = in_order(pool, lambda position: source.batch(position, clips, range(clips)), positions, read_ahead)
        for number, batch in zip(own, cut, strict=True):
            batch = batch.to(worker.device)
            more = objective(batch, source.target_set(batch)).sums
            if number >= batches:  # a surplus one
                more = {name: torch.zeros_like(value) for name, value in more.items()}
            sums = add_sums(sums, more)
    objective.train(was_training)
    sums = sum_over_workers(sums, worker)
    return mean_terms(sums, objective) | codebook_terms(sums, objective.specs)


REFERENCE_CROPS = 512


def unigram_cross_entropy(
    train: CropSource, valid: CropSource, crops: int, device: torch.device
) -> dict[str, list[float]]:
    """Return, per teacher and codebook, the nats that guessing each validation code by its frequency in training costs.

    A student below this line has learned something from the music around the mask. Frequencies come from the first
    512 training crops, with one added to each count; the codes of the first ``crops`` validation crops are guessed.
    """

    def codes(source: CropSource, teacher: str, count: int) -> NDArray[np.int64]:
        """Return the codes of the first crops (crops, frames, codebooks), without the sound where they are stored."""
        if (stored := source.target_set.stored.get(teacher)) is not None:
            rows, offsets = source.locate(np.arange(count, dtype=np.int64))
            return stored.read(rows, offsets // HOP_SAMPLES, source.frames)
        batches = (source.batch(position, 1, range(1)).to(device) for position in range(count))
        return np.concatenate([source.target_set(batch, [teacher])[teacher].cpu().numpy() for batch in batches])

    nats: dict[str, list[float]] = {}
    for name, kind in codes_of(train.target_set.specs).items():
        counted, guessed = codes(train, name, min(REFERENCE_CROPS, len(train))), codes(valid, name, crops)
        nats[name] = []
        for book in range(kind.codebooks):
            counts = np.bincount(counted[..., book].ravel(), minlength=kind.entries) + 1.0
            nats[name].append(float(-np.log(counts / counts.sum())[guessed[..., book].ravel()].mean()))
    return nats


@torch.no_grad()
def spectra_example(objective: Objective, source: CropSource, worker: Worker) -> dict[str, NDArray[np.generic]]:
    """Return one validation crop's ``mask`` (frames,), ``true_NAME`` and ``predicted_NAME`` spectra (frames, bins).

    All workers must call this together.
    """
    was_training = objective.training
    objective.eval()
    batch = source.batch(0, 1, range(1)).to(worker.device)
    true = source.target_set(batch, spectra_of(objective.specs))
    predicted = objective.guessed_spectra(batch.noisy, batch.mask)
    example: dict[str, NDArray[np.generic]] = {"mask": batch.mask[0].cpu().numpy()}
    for name in true:
        example[f"true_{name}"] = true[name][0].float().cpu().numpy()
        example[f"predicted_{name}"] = predicted[name][0].float().cpu().numpy()
    objective.train(was_training)
    return example
