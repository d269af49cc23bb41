"""The training loop, top to bottom. The same code runs in this process, in a Ray worker and in a sweep's trial."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.pretrain.data import Batch, CropSource
from mert_core.pretrain.objective import Objective
from mert_core.pretrain.observe import Observer
from mert_core.pretrain.optimiser import build_optimiser, learning_rate
from mert_core.pretrain.place import Place
from mert_core.pretrain.state import Progress, StateStore
from mert_core.pretrain.tally import no_sums, tally, terms
from mert_core.pretrain.validate import validate

if TYPE_CHECKING:
    from mert_core.config import Pretrain

DIVERGED = 5.0
"""A loss this many times that of the first update means that the run is lost."""

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
) -> Progress:
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

    Returns:
        The progress; its curve ends with a validation at the last step.

    Raises:
        MertError: the loss or the gradient is not finite, or the loss has exploded; the last resume state is intact.
    """
    objective.to(place.device).train()
    optimiser = build_optimiser(params, objective)
    progress = _resume(states, objective, optimiser, place, observer)
    module = _parallel(objective, place)
    clock = _Clock()
    stopped = False
    loader = _Loader(params, train_source, place, progress.step)
    with loader:
        while progress.step < params.max_steps and not stopped:
            with clock.waiting():
                batches = [batch.to(place.device) for batch in loader.take()]
            step = progress.step + 1
            rate = learning_rate(params, step)
            masked = torch.tensor(float(sum(batch.masked_frames for batch in batches)), device=place.device)
            masked_frames = place.sum(masked).item()

            sums = no_sums(objective.heads.codebooks, place.device)
            with _seeded(seed, step, place):
                for number, batch in enumerate(batches):
                    last = number == len(batches) - 1
                    with _no_sync(module, last), _autocast(params, place):
                        losses = module(batch)
                    with _no_sync(module, last):
                        # workers' gradients are averaged, the loss is a sum over all masked frames of all workers
                        (losses.weighted * (place.world / masked_frames)).backward()
                    sums += tally(losses, batch.masked_frames)
            values = terms(place.sum(sums), params.weights)
            norm = nn.utils.clip_grad_norm_(objective.parameters(), params.clip_norm).item()
            _check(step, values, norm, progress, states)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()

            progress.step = step
            progress.first_loss = progress.first_loss if progress.first_loss is not None else values["loss"]
            progress.window = sums.cpu() if progress.window is None else progress.window + sums.cpu()
            clock.count(loader.clips * train_source.crop_samples / 24000)
            if place.leads:
                observer.progress(step, values["loss"], clock.audio_hours_per_second)
            if step % params.log_every == 0 or step == params.max_steps:
                logged = terms(progress.window, params.weights)
                progress.window = None
                _record(progress, "train", logged)
                if place.leads:
                    speed = clock.read()
                    observer.metrics({f"train/{k}": v for k, v in logged.items()} | speed, step)
                    observer.metrics({"train/gradient_norm": norm, "train/learning_rate": rate}, step)
            if step % params.validate_every == 0:
                stopped = _validate(params, objective, valid_source, place, progress, observer, report)
                clock.restart()
            if states is not None and step % params.checkpoint_every == 0 and step < params.max_steps:
                if place.leads:
                    states.save(progress, objective, optimiser)
                place.wait()
                clock.restart()
    if not any(row[0] == progress.step and row[1] == "valid" for row in progress.curve):
        _validate(params, objective, valid_source, place, progress, observer, report)
    return progress


def _resume(
    states: StateStore | None, objective: Objective, optimiser: torch.optim.Optimizer, place: Place, observer: Observer
) -> Progress:
    if states is None:
        return Progress()
    step, damaged = states.newest()
    place.wait()
    for sentence in damaged if place.leads else []:
        observer.note(sentence)
    if step is None:
        return Progress()
    if place.leads:
        observer.note(f"going on from step {step}")
    return states.load(step, objective, optimiser)


def _parallel(objective: Objective, place: Place) -> nn.Module:
    if place.world == 1:
        return objective
    return DistributedDataParallel(
        objective,
        device_ids=[place.device] if place.device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # else the buckets cost another copy of all gradients
        find_unused_parameters=objective.encoder.config.layerdrop > 0,
        broadcast_buffers=False,
    )


def _no_sync(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()


def _autocast(params: Pretrain, place: Place) -> torch.autocast:
    return torch.autocast(place.device.type, torch.bfloat16, enabled=params.precision == "bf16")


@contextmanager
def _seeded(seed: int, step: int, place: Place) -> Iterator[None]:
    """Make dropout and layer drop a function of (seed, step, rank), so that resuming needs no generator state."""
    digest = hashlib.sha256(f"{seed}/{step}/{place.rank}".encode()).digest()
    devices = [place.device] if place.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int.from_bytes(digest[:7]))
        yield


def _check(step: int, values: dict[str, float], norm: float, progress: Progress, states: StateStore | None) -> None:
    found = None
    if not math.isfinite(values["loss"]):
        found = f"the loss is {values['loss']}"
    elif not math.isfinite(norm):
        found = f"the gradient norm is {norm}"
    elif progress.first_loss is not None and values["loss"] > DIVERGED * progress.first_loss:
        found = f"the loss is {values['loss']:.3g}, over {DIVERGED:g} times the first one ({progress.first_loss:.3g})"
    if found is None:
        return
    named = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    kept = states.steps()[-1:] if states is not None else []
    intact = f"The resume state of step {kept[0]} is intact" if kept else "No resume state had been written yet"
    raise MertError(
        f"training diverged at step {step}: {found} ({named}; gradient norm {norm:.4g}). {intact}. Lower "
        "pretrain.learning_rate or pretrain.clip_norm, or lengthen pretrain.warmup_steps."
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
) -> bool:
    values = validate(params, objective, source, place)
    _record(progress, "valid", values)
    if place.leads:
        observer.metrics({f"valid/{name}": value for name, value in values.items()}, progress.step)
    if report is not None:
        try:
            report(progress.step, values, objective.encoder)
        except StopTraining:
            return True
    return False


class _Loader:
    """Prepares the next update's micro-batches on a thread while the present one is computed."""

    def __init__(self, params: Pretrain, source: CropSource, place: Place, step: int) -> None:
        self._params, self._source, self._place, self._step = params, source, place, step
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="crops")
        self._next: Future[list[Batch]] | None = None
        self.clips = params.batch_clips * place.world * params.accumulate

    def __enter__(self) -> _Loader:
        self._submit()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        if self._step < self._params.max_steps:
            self._next = self._pool.submit(self._prepare, self._step)
            self._step += 1

    def _prepare(self, step: int) -> list[Batch]:
        share = self._params.batch_clips
        clips = share * self._place.world
        own = range(share * self._place.rank, share * (self._place.rank + 1))
        firsts = (step * self.clips + number * clips for number in range(self._params.accumulate))
        return [self._source.batch(first, clips, own) for first in firsts]

    def take(self) -> list[Batch]:
        """Return the next update's micro-batches."""
        assert self._next is not None
        batches = self._next.result()
        self._submit()
        return batches


class _Clock:
    """Speed since the last logged point; validation and checkpoints are not counted."""

    def __init__(self) -> None:
        self._steps, self._audio_seconds, self._busy, self._waited = 0, 0.0, 0.0, 0.0
        self._mark = time.perf_counter()
        self.audio_hours_per_second = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count(self, audio_seconds: float) -> None:
        """Count one update."""
        now = time.perf_counter()
        self._busy += now - self._mark
        self._mark = now
        self._steps += 1
        self._audio_seconds += audio_seconds
        self.audio_hours_per_second = self._audio_seconds / 3600 / self._busy

    def restart(self) -> None:
        """Leave out the time since the last update."""
        self._mark = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return the figures and start a new count."""
        figures = {
            "speed/steps_per_second": self._steps / self._busy,
            "speed/audio_hours_per_second": self.audio_hours_per_second,
            "speed/data_wait_share": self._waited / self._busy,
        }
        self._steps, self._audio_seconds, self._busy, self._waited = 0, 0.0, 0.0, 0.0
        return figures
