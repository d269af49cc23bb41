"""A validation score within seconds for a model in memory, by which a sweep compares its trials."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mert_core.datasets.base import ClipSet
from mert_core.errors import MertError
from mert_core.probing.encoders.base import ModelEncoder
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.evaluate.clips import ClipEvaluator
from mert_core.probing.protocol import settings_of
from mert_core.probing.run import resolve
from mert_core.probing.tasks import tasks_named

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.model.mert import MertModel
    from mert_core.paths import Layout

TRAIN_CLIPS = 600
"""Training clips at most."""


def validation_score(model: MertModel, config: Config, layout: Layout, name: str) -> float:
    """Return the validation score of one task.

    The middle rates and one seed, at most 600 training clips, all validation clips; the test split is not touched, and
    nothing is cached. The model is left on its device and in its mode.

    Raises:
        MertError: no such task, one without an answer per clip, or its data set is not here.
    """
    (task,) = tasks_named([name])
    evaluator = EVALUATORS[task.kind]
    if not isinstance(evaluator, ClipEvaluator):
        raise MertError(f"{name} is no task for a sweep; expected one with an answer per clip, such as demo/gs_key")
    resolved = resolve(config, layout, task)
    if resolved.absent:
        raise MertError(f"{resolved.absent} (looked in {resolved.folder}); the sweep's task is {name}")
    settings = settings_of(config, task)
    rates = sorted(settings.rates)
    middle = rates[len(rates) // 4 : max(len(rates) // 4 + 1, -(-3 * len(rates) // 4))]
    training = model.training
    try:
        inputs = EvalInputs(
            task=task,
            clips=_sample(resolved.clips(), config.seed),
            encoder=ModelEncoder(model),
            settings=settings.model_copy(update={"rates": middle, "seeds": settings.seeds[:1]}),
            seed=config.seed,
            caches=None,
            before_test=lambda chosen, rate: None,
        )
        return evaluator.select(inputs).choice.validation
    finally:
        model.train(training)


def _sample(clips: ClipSet, seed: int) -> ClipSet:
    """Return the clips to train and to choose on, none of the test split."""
    train, valid = clips.of("train"), clips.of("valid")
    if len(train) > TRAIN_CLIPS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(train), TRAIN_CLIPS, replace=False))
        train = [train[number] for number in chosen]
    return replace(clips, clips=(*train, *valid))
