"""Tasks with one answer per clip: a class, tags or values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split
from mert_core.datasets.base import Clip
from mert_core.probing.embeddings import Embeddings, FeatureView
from mert_core.probing.evaluate.base import EvalInputs, Evaluator
from mert_core.probing.features import Features, mean_over_tracks
from mert_core.probing.metrics import METRICS, Metric, figures
from mert_core.probing.probe_bank import ProbeLoss
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.robustness import robustness_curves, sample_clips
from mert_core.probing.selection import Selection, input_name, select
from mert_core.probing.significance import interval_of
from mert_core.probing.tasks import TaskKind
from mert_core.probing.train import Examples


@dataclass(frozen=True)
class _Split:
    """The usable clips of one split.

    Attributes:
        clips: with their labels.
        features: a row per window.
        tracks: index of the clip that each row is of (rows,).
        truth: classes (clips,), tags or values (clips, outputs).
    """

    clips: list[Clip]
    features: Features
    tracks: NDArray[np.int64]
    truth: NDArray[Any]

    @property
    def examples(self) -> Examples:
        return Examples.of_tracks(self.features, self.tracks, self.truth)


class ClipEvaluator(Evaluator):
    """Scores a probe of each window; a clip's output is the mean over its windows."""

    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Train on the training split, choose on validation, score the test split once.

        Raises:
            MertError: a split has no usable clip, or the model has diverged.
        """
        embedded = inputs.embed()
        selection = self._select(inputs, embedded)
        choice, task = selection.choice, inputs.task
        inputs.before_test(input_name(choice.input), choice.rate)

        test = self._split(inputs, embedded, "test")
        outputs = _outputs(selection, test.features, test.tracks, len(test.clips))
        estimate = partial(_estimate, inputs, test.truth, outputs)
        main, classes = METRICS[task.metrics[0]], inputs.clips.classes
        metrics = {metric.name: estimate(metric) for name in task.metrics for metric in figures(name, classes)}
        return TaskResult(
            task=task.name,
            metric=main.name,
            summary=metrics.get(main.name) or estimate(main),
            metrics=metrics,
            tracks=len(test.clips),
            classes=len(classes),
            input=input_name(choice.input),
            rate=choice.rate,
            validation=choice.validation,
            per_seed=[float(value) for value in main(test.truth, outputs)],
            by_input=[(input_name(number), score) for number, score in choice.by_input],
            predictions=Predictions(
                tuple(clip.clip_id for clip in test.clips), task.metrics, classes, test.truth, outputs
            ),
            left_out=dict(Counter(embedded.missing.values())),
            robustness=self._robustness(inputs, selection, test) if inputs.wants_robustness else {},
        )

    def select(self, inputs: EvalInputs) -> Selection:
        """Train and choose on validation; inputs without test clips will do.

        Raises:
            MertError: as `evaluate`.
        """
        return self._select(inputs, inputs.embed())

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[Any]:
        """Return the labels of clips as numbers, in the form that the kind's metrics take."""
        raise NotImplementedError

    def _select(self, inputs: EvalInputs, embedded: Embeddings) -> Selection:
        task, settings = inputs.task, inputs.settings
        train, valid = self._split(inputs, embedded, "train"), self._split(inputs, embedded, "valid")
        return select(
            train.examples,
            valid.examples,
            ProbeLoss(self.kind.value, len(inputs.clips.classes)),  # type: ignore[arg-type]
            inputs.probe_settings,
            partial(METRICS[task.metrics[0]], valid.truth),
            rates=settings.rates,
            seeds=settings.seeds,
            name=task.name,
            device=inputs.encoder.device,
        )

    def _split(self, inputs: EvalInputs, embedded: Embeddings, split: Split) -> _Split:
        clips, classes = inputs.clips.clips, inputs.clips.classes
        indices = inputs.usable(embedded, split)
        if split == "train" and self.kind is TaskKind.SINGLE:  # a probe cannot learn a class that has no output
            indices = [i for i in indices if clips[i].label in classes]
            if not indices:
                inputs.refuse_empty(embedded, split, "none has a class")
        used = [clips[i] for i in indices]
        features = FeatureView(embedded, embedded.rows(indices))
        return _Split(used, features, embedded.owners(indices), self.truth(classes, used))

    def _robustness(self, inputs: EvalInputs, selection: Selection, test: _Split) -> dict[str, list[dict[str, Any]]]:
        """Score the chosen probes on some test clips, degraded."""

        def score(embedded: Embeddings, clips: Sequence[Clip]) -> Estimate:
            indices = range(len(clips))
            features = FeatureView(embedded, embedded.rows(indices))
            outputs = _outputs(selection, features, embedded.owners(indices), len(clips))
            truth = self.truth(inputs.clips.classes, clips)
            return _estimate(inputs, truth, outputs, METRICS[inputs.task.metrics[0]])

        clips = sample_clips(test.clips, inputs.settings.robustness.clips)
        return robustness_curves(inputs.encoder, inputs.task, clips, score, inputs.caches)


class ClassEvaluator(ClipEvaluator):
    """One class of several."""

    kind = TaskKind.SINGLE
    rules: ClassVar = {"loss": "cross-entropy", "track": "mean of its windows' logits"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Return class indices (clips,), −1 for a label that is no class."""
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(clip.label, -1) for clip in clips], dtype=np.int64)


class TagEvaluator(ClipEvaluator):
    """Any number of tags."""

    kind = TaskKind.MULTI
    rules: ClassVar = {"loss": "binary cross-entropy per tag", "track": "mean of its windows' logits"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Return tags as 0 and 1 (clips, classes)."""
        return np.array([[name in set(clip.label) for name in classes] for clip in clips], dtype=np.int64)


class ValueEvaluator(ClipEvaluator):
    """One value or several."""

    kind = TaskKind.REGRESSION
    rules: ClassVar = {"loss": "squared error of standardised targets", "track": "mean of its windows' predictions"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.float64]:
        """Return values (clips, classes)."""
        return np.array([clip.label for clip in clips], dtype=np.float64)


def _outputs(selection: Selection, features: Features, tracks: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return each seed's output per clip (seeds, clips, outputs): the mean over its windows."""
    return mean_over_tracks(selection.trained.predict(features), tracks, count)


def _estimate(inputs: EvalInputs, truth: NDArray[Any], outputs: NDArray[np.float32], metric: Metric) -> Estimate:
    low, high = interval_of(metric, truth, outputs, inputs.settings.bootstrap, inputs.seed)
    return Estimate(float(metric(truth, outputs).mean()), low, high)
