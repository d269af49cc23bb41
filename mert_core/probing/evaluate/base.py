"""What every evaluator is given and returns, and the course of evaluation that all kinds of probes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mert_core.config import Split
from mert_core.datasets.base import Clip, ClipSet
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, FeatureView, embeddings
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import ProbeSettings
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.robustness import robustness_curves, sample_clips
from mert_core.probing.selection import Selection, input_name
from mert_core.probing.significance import interval, means_of, scores_of
from mert_core.probing.tasks import Task, TaskKind, robustness_tasks
from mert_core.probing.train import TrainedProbes

if TYPE_CHECKING:
    from mert_core.config import ProbeConfig
    from mert_core.probing.encoders.base import Encoder


@dataclass(frozen=True)
class EmbeddedClips:
    """Some clips and their embeddings, which are those of a whole data set, at ``indices``."""

    embedded: Embeddings
    clips: Sequence[Clip]
    indices: Sequence[int]

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers of the clips."""
        return tuple(clip.clip_id for clip in self.clips)

    @property
    def features(self) -> FeatureView:
        """The clips' rows, clip by clip."""
        return FeatureView(self.embedded, self.embedded.rows(self.indices))


@dataclass(frozen=True)
class EvalInputs:
    """One task, its clips and the encoder that is probed.

    Attributes:
        task: row of the task in `mert_core.probing.tasks`.
        clips: labelled clips in their official splits.
        encoder: the frozen encoder.
        settings: the section ``probe`` as it holds for this task.
        seed: seed of intervals, and of all draws but those of the probes.
        caches: folder where embeddings are kept; None: they are kept nowhere.
        before_test: called once with the chosen input and rate, before the labels of the test split are read; it
            raises where the test set was read before under another choice.
    """

    task: Task
    clips: ClipSet
    encoder: Encoder
    settings: ProbeConfig
    seed: int
    caches: Path | None
    before_test: Callable[[int | str, float], None]

    @property
    def probe_settings(self) -> ProbeSettings:
        """How the parameters say probes are trained."""
        return ProbeSettings(**{field.name: getattr(self.settings, field.name) for field in fields(ProbeSettings)})

    @property
    def wants_robustness(self) -> bool:
        """Whether the chosen probes are scored on degraded music, too."""
        return self.task.name in robustness_tasks(self.settings)

    @cached_property
    def embedded(self) -> Embeddings:
        """The embeddings of all clips, in their order."""
        task, sounds = self.task, [clip.sound for clip in self.clips.clips]
        return embeddings(self.encoder, sounds, task.chunking, task.pooling, self.caches, task.name)

    def usable(self, split: Split, with_class: bool = False) -> EmbeddedClips:
        """Return the clips of a split that could be embedded; with ``with_class``, those whose label is a class.

        Raises:
            MertError: there is none.
        """
        clips, missing, why = self.clips.clips, self.embedded.missing, "it has none"
        indices = [i for i, clip in enumerate(clips) if clip.split == split and i not in missing]
        if with_class and indices:
            indices, why = [i for i in indices if clips[i].label in self.clips.classes], "none has a class"
        if not indices:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in Counter(missing.values()).most_common())
            raise MertError(f"{self.task.name}: no clip of the {split} split can be used ({reasons or why})")
        return EmbeddedClips(self.embedded, [clips[i] for i in indices], indices)


class Evaluator(ABC):
    """How tasks of one kind of answer are scored: train on training clips, choose on validation, score test clips once.

    Attributes:
        kind: kind of answer that it scores.
        rules: what of the protocol holds for this kind alone; its hash stands beside each score.
        section: subsection of ``probe`` in ``params.yaml`` that only this kind reads; None: there is none.
    """

    kind: ClassVar[TaskKind]
    rules: ClassVar[Mapping[str, str]]
    section: ClassVar[str | None] = None

    @abstractmethod
    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Return the scores of the test split.

        Raises:
            MertError: a split has no usable clip, or the model has diverged.
        """


class ProbeEvaluator(Evaluator):
    """Scores probes; a kind of answer says how they are chosen and what they predict."""

    @abstractmethod
    def select(self, inputs: EvalInputs) -> Selection:
        """Train and choose on validation; inputs without test clips will do.

        Raises:
            MertError: as `evaluate`.
        """

    @abstractmethod
    def predict(self, inputs: EvalInputs, trained: TrainedProbes, clips: EmbeddedClips) -> Predictions:
        """Return the predictions of each trained probe."""

    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Train on the training split, choose on validation, score the test split once; see `Evaluator.evaluate`."""
        task, main = inputs.task, inputs.task.metrics[0]
        selection = self.select(inputs)
        choice, trained = selection.choice, selection.trained
        inputs.before_test(input_name(choice.input), choice.rate)

        test = inputs.usable("test")
        predictions = self.predict(inputs, trained, test)
        names = [*(metric.name for metric in predictions.figures()), *predictions.points]
        metrics = {name: _estimate(inputs, predictions, name) for name in names}
        if main in predictions.points:
            per_seed = predictions.points[main].mean(axis=1)
        else:
            per_seed = METRICS[main](predictions.truth, predictions.outputs)

        def score_degraded(embedded: Embeddings, clips: Sequence[Clip]) -> Estimate:
            degraded = EmbeddedClips(embedded, clips, range(len(clips)))
            return _estimate(inputs, self.predict(inputs, trained, degraded), main)

        curves: dict[str, list[dict[str, Any]]] = {}
        if inputs.wants_robustness:
            some = sample_clips(test.clips, inputs.settings.robustness.clips)
            curves = robustness_curves(inputs.encoder, task, some, score_degraded, inputs.caches)
        return TaskResult(
            task=task.name,
            metric=main,
            summary=metrics.get(main) or _estimate(inputs, predictions, main),
            metrics=metrics,
            tracks=len(test.clips),
            classes=len(inputs.clips.classes) or 1,
            input=input_name(choice.input),
            rate=choice.rate,
            validation=choice.validation,
            per_seed=per_seed.tolist(),
            by_input=[(input_name(number), score) for number, score in choice.by_input],
            predictions=predictions,
            left_out=dict(Counter(inputs.embedded.missing.values())),
            robustness=curves,
        )


def _estimate(inputs: EvalInputs, predictions: Predictions, name: str) -> Estimate:
    """Return one of the predictions' figures, or a metric that selects, with its interval."""
    resamples, seed = inputs.settings.bootstrap, inputs.seed
    if name in predictions.points:
        points = predictions.points[name]
        return Estimate(float(points.mean()), *interval(means_of(points, resamples, seed)))
    metric = (METRICS | {figure.name: figure for figure in predictions.figures()})[name]
    truth, outputs = predictions.truth, predictions.outputs
    return Estimate(float(metric(truth, outputs).mean()), *interval(scores_of(metric, truth, outputs, resamples, seed)))
