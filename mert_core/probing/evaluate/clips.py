"""Tasks with one answer per clip: a class, tags or values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split
from mert_core.datasets.base import Clip
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, FeatureView, embeddings
from mert_core.probing.evaluate.case import EvalInputs
from mert_core.probing.metrics import METRICS, Metric, figures
from mert_core.probing.probe_bank import ProbeLoss, ProbeSettings
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.robustness import curves, some_clips
from mert_core.probing.significance import interval_of
from mert_core.probing.tasks import TaskKind
from mert_core.probing.train import Examples, Features, Selection, input_name, mean_over_tracks, select

Judged = tuple[TaskResult, dict[str, int], dict[str, list[dict[str, Any]]]]
"""Verdict, reason → clips left out, and deformation → points."""
_OBJECTIVES = {TaskKind.SINGLE: "single", TaskKind.MULTI: "multi", TaskKind.REGRESSION: "regression"}


@dataclass(frozen=True)
class _Split:
    """The usable clips of one split.

    Attributes:
        clips: with their answers.
        features: a row per window.
        tracks: which clip each row is of (rows,).
        truth: classes (clips,), tags or values (clips, outputs).
    """

    clips: list[Clip]
    features: Features
    tracks: NDArray[np.int64]
    truth: NDArray[Any]

    @property
    def examples(self) -> Examples:
        return Examples.of_tracks(self.features, self.tracks, self.truth)


def judge_clips(case: EvalInputs) -> Judged:
    """Train on the training split, choose on validation, score the test split once.

    Raises:
        MertError: a split has no usable clip, or the model has diverged.
    """
    found = _embedded(case)
    selection = _select(case, found)
    case.before_test(input_name(selection.choice.input), selection.choice.rate)
    test = _split(case, found, "test")
    outputs = _outputs(selection, test.features, test.tracks, len(test.clips))
    verdict = _verdict(case, selection, test, outputs)
    asked_again = case.task.name in case.settings.robustness.tasks
    return verdict, dict(Counter(found.missing.values())), _robustness(case, selection, test) if asked_again else {}


def select_on_validation(case: EvalInputs) -> Selection:
    """Train and choose; a case without test clips will do.

    Raises:
        MertError: as `judge_clips`.
    """
    return _select(case, _embedded(case))


def _embedded(case: EvalInputs) -> Embeddings:
    task, sounds = case.task, [clip.sound for clip in case.clips.clips]
    return embeddings(case.encoder, sounds, task.chunking, task.pooling, case.caches, task.name)


def _select(case: EvalInputs, found: Embeddings) -> Selection:
    task, settings = case.task, case.settings
    train, valid = _split(case, found, "train"), _split(case, found, "valid")
    return select(
        train.examples,
        valid.examples,
        ProbeLoss(_OBJECTIVES[task.kind], len(case.clips.classes)),  # type: ignore[arg-type]
        recipe_of(case),
        _scorer(METRICS[task.metrics[0]], valid.truth),
        rates=settings.rates,
        seeds=settings.seeds,
        name=task.name,
        device=case.encoder.device,
    )


def recipe_of(case: EvalInputs) -> ProbeSettings:
    """Return how the parameters say probes are trained."""
    settings = case.settings
    return ProbeSettings(
        settings.hidden,
        settings.dropout,
        settings.batch_items,
        settings.max_epochs,
        settings.patience,
        settings.plateau_patience,
        settings.plateau_factor,
    )


def truth_of(kind: TaskKind, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[Any]:
    """Return answers as numbers.

    Class indices (clips,), −1 for one that is no class; tags as 0 and 1, or values, (clips, classes).
    """
    if kind is TaskKind.SINGLE:
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(clip.label, -1) for clip in clips], dtype=np.int64)
    if kind is TaskKind.MULTI:
        return np.array([[name in set(clip.label) for name in classes] for clip in clips], dtype=np.int64)
    return np.array([clip.label for clip in clips], dtype=np.float64)


def _split(case: EvalInputs, found: Embeddings, split: Split) -> _Split:
    clips = case.clips.clips
    chosen = [
        number
        for number, clip in enumerate(clips)
        if clip.split == split
        and number not in found.missing
        and (split != "train" or case.task.kind is not TaskKind.SINGLE or clip.label in case.clips.classes)
    ]
    if not chosen:
        reasons = ", ".join(f"{count} × {why}" for why, count in Counter(found.missing.values()).most_common())
        raise MertError(f"{case.task.name}: no clip of the {split} split can be used ({reasons or 'none has a class'})")
    used = [clips[number] for number in chosen]
    truth = truth_of(case.task.kind, case.clips.classes, used)
    return _Split(used, FeatureView(found, found.rows(chosen)), found.owners(chosen), truth)


def _scorer(metric: Metric, truth: NDArray[Any]) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    return lambda outputs: metric(truth, outputs)


def _outputs(selection: Selection, features: Features, tracks: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return each seed's output per clip (seeds, clips, outputs): the mean over its windows."""
    return mean_over_tracks(selection.trained.predict(features), tracks, count)


def _verdict(case: EvalInputs, selection: Selection, test: _Split, outputs: NDArray[np.float32]) -> TaskResult:
    task, settings, choice = case.task, case.settings, selection.choice
    main = METRICS[task.metrics[0]]

    def figure(metric: Metric) -> Estimate:
        low, high = interval_of(metric, test.truth, outputs, settings.bootstrap, case.seed)
        return Estimate(float(metric(test.truth, outputs).mean()), low, high)

    shown = [metric for name in task.metrics for metric in figures(name, case.clips.classes)]
    metrics = {metric.name: figure(metric) for metric in shown}
    return TaskResult(
        metric=main.name,
        summary=metrics.get(main.name) or figure(main),
        metrics=metrics,
        tracks=len(test.clips),
        classes=len(case.clips.classes),
        input=input_name(choice.input),
        rate=choice.rate,
        validation=choice.validation,
        per_seed=[float(value) for value in main(test.truth, outputs)],
        by_input=[(input_name(number), score) for number, score in choice.by_input],
        answers=Predictions(
            tuple(clip.clip_id for clip in test.clips), task.metrics, case.clips.classes, test.truth, outputs
        ),
    )


def _robustness(case: EvalInputs, selection: Selection, test: _Split) -> dict[str, list[dict[str, Any]]]:
    """Ask the chosen probes of some test clips again, deformed."""
    metric = METRICS[case.task.metrics[0]]

    def score(found: Embeddings, clips: Sequence[Clip]) -> tuple[float, float, float]:
        positions = range(len(clips))
        features, tracks = FeatureView(found, found.rows(positions)), found.owners(positions)
        outputs = _outputs(selection, features, tracks, len(clips))
        truth = truth_of(case.task.kind, case.clips.classes, clips)
        low, high = interval_of(metric, truth, outputs, case.settings.bootstrap, case.seed)
        return float(metric(truth, outputs).mean()), low, high

    clips = some_clips(test.clips, case.settings.robustness.clips)
    return curves(case.encoder, case.task, clips, score, case.caches)
