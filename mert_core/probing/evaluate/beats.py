"""Beats: a probe per frame says how likely a beat is there, and a model of tempo says where the beats are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Split
from mert_core.datasets.base import Clip
from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.beat_decoder import TOLERANCES, TempoModel, decode, f_measures, frame_targets, trim_seconds_of
from mert_core.probing.embeddings import Embeddings, FeatureView
from mert_core.probing.evaluate.base import EvalInputs, Evaluator
from mert_core.probing.metrics import METRICS, Points
from mert_core.probing.probe_bank import ProbeLoss
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.robustness import robustness_curves, sample_clips
from mert_core.probing.selection import Selection, input_name, select
from mert_core.probing.significance import interval
from mert_core.probing.tasks import TaskKind
from mert_core.probing.train import Examples


@dataclass(frozen=True)
class _BeatTrack:
    """One clip, as it is decoded.

    Attributes:
        beats: true ones, in seconds.
        rows: its rows among those of its split.
        frame_indices: frame of each row, counted from the clip's start (rows,). Windows leave gaps.
        trim_seconds: how much of its start is not scored.
    """

    beats: NDArray[np.float64]
    rows: slice
    frame_indices: NDArray[np.int64]
    trim_seconds: float

    def targets(self, frame_rate: float) -> NDArray[np.int64]:
        """Return whether a beat is near, for each row."""
        return frame_targets(self.beats, int(self.frame_indices[-1]) + 1, frame_rate)[self.frame_indices]

    def scores(self, logits: NDArray[np.float32], model: TempoModel) -> list[float]:
        """Return the F-measure at each tolerance of the beats that a probe's logits (rows,) lead to."""
        likely = 0.5 + 0.5 * np.tanh(0.5 * logits[self.rows].astype(np.float64))
        activation = np.interp(np.arange(self.frame_indices[-1] + 1), self.frame_indices, likely)
        return [*f_measures(self.beats, decode(activation, model), self.trim_seconds).values()]


@dataclass(frozen=True)
class _Frames:
    """Frames of some clips.

    Attributes:
        clips: in order.
        tracks: the same, as they are decoded.
        features: a row per frame.
        frame_rate: frames per second.
    """

    clips: list[Clip]
    tracks: list[_BeatTrack]
    features: FeatureView
    frame_rate: float

    @classmethod
    def of(cls, embedded: Embeddings, clips: Sequence[Clip], positions: Sequence[int]) -> _Frames:
        """Return the frames of clips; ``positions`` are their numbers among the embedded sounds."""
        assert embedded.frame_rate is not None
        tracks, start = [], 0
        for clip, position in zip(clips, positions, strict=True):
            frame_indices = np.round(embedded.times(position) * embedded.frame_rate).astype(np.int64)
            trim_seconds = trim_seconds_of(embedded.samples(position) / SAMPLE_RATE)
            beats = np.asarray(clip.label, dtype=np.float64)
            tracks.append(_BeatTrack(beats, slice(start, start + len(frame_indices)), frame_indices, trim_seconds))
            start += len(frame_indices)
        return cls(list(clips), tracks, FeatureView(embedded, embedded.rows(positions)), embedded.frame_rate)

    def examples(self, embedded: Embeddings, positions: Sequence[int], share: float, seed: int) -> Examples:
        """Return a random share of the frames with their targets."""
        targets = np.concatenate([track.targets(self.frame_rate) for track in self.tracks])
        rows = embedded.rows(positions)
        if share < 1:
            count = max(1, round(share * len(rows)))
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
            rows, targets = rows[chosen], targets[chosen]
        return Examples(FeatureView(embedded, rows), targets[:, None])

    def points(self, outputs: NDArray[np.float32], name: str) -> dict[str, Points]:
        """Return the F-measures of each probe on each clip, (probes, clips) by metric.

        Args:
            outputs: logits (probes, rows, 1).
            name: for the progress bar.
        """
        model = TempoModel(self.frame_rate)
        work = [(logits, track) for logits in outputs[..., 0] for track in self.tracks]
        with tqdm(total=len(work), desc=f"beats {name}", unit="clip", leave=False) as bar, single_threads() as pool:
            scores = []
            for f_scores in pool.map(lambda pair: pair[1].scores(pair[0], model), work):
                scores.append(f_scores)
                bar.update()
        by_metric = np.array(scores).reshape(len(outputs), len(self.tracks), len(TOLERANCES))
        return {metric: by_metric[..., number] for number, metric in enumerate(TOLERANCES)}


class BeatEvaluator(Evaluator):
    """Times of beats."""

    kind = TaskKind.BEATS
    section = "beats"
    rules: ClassVar = {
        "loss": "binary cross-entropy per frame, beats widened by one frame",
        "epoch": "frame-wise average precision on validation",
        "decoder": "bar-pointer model of one beat, 55 to 215 beats per minute, transition 100, observation 16",
        "scored": "beats from 5 s on, as mir_eval has it; all beats of clips shorter than 15 s",
    }

    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Train a probe per frame; choose on validation by decoded beats; score the test split once.

        A probe's epoch is that of the best average precision over frames, which is cheap; input and rate are those of
        the best F-measure of beats within 70 ms, as the tempo model decodes them from whole clips.

        Raises:
            MertError: a split has no usable clip, or the model has diverged.
        """
        embedded, task = inputs.embed(), inputs.task
        selection = _select(inputs, embedded)
        choice = selection.choice
        inputs.before_test(input_name(choice.input), choice.rate)
        test = _Frames.of(embedded, *_usable(inputs, embedded, "test"))
        points = test.points(selection.trained.predict(test.features), task.name)
        metrics = {name: _estimate(inputs, points[name]) for name in task.metrics}
        return TaskResult(
            task=task.name,
            metric=task.metrics[0],
            summary=metrics[task.metrics[0]],
            metrics=metrics,
            tracks=len(test.clips),
            classes=1,
            input=input_name(choice.input),
            rate=choice.rate,
            validation=choice.validation,
            per_seed=points[task.metrics[0]].mean(axis=1).tolist(),
            by_input=[(input_name(number), score) for number, score in choice.by_input],
            predictions=Predictions(
                tuple(clip.clip_id for clip in test.clips), points={name: points[name] for name in task.metrics}
            ),
            left_out=dict(Counter(embedded.missing.values())),
            robustness=_robustness(inputs, selection, test) if inputs.wants_robustness else {},
        )


def _usable(inputs: EvalInputs, embedded: Embeddings, split: Split) -> tuple[list[Clip], list[int]]:
    indices = inputs.usable(embedded, split)
    return [inputs.clips.clips[i] for i in indices], indices


def _select(inputs: EvalInputs, embedded: Embeddings) -> Selection:
    settings, name, main = inputs.settings, inputs.task.name, inputs.task.metrics[0]
    usable = {split: _usable(inputs, embedded, split) for split in ("train", "valid")}
    frames = {split: _Frames.of(embedded, *chosen) for split, chosen in usable.items()}
    examples = {
        split: frames[split].examples(embedded, usable[split][1], settings.beats.frames_share, inputs.seed)
        for split in frames
    }
    truth = examples["valid"].truth
    if not (truth.any() and examples["train"].truth.any()):
        raise MertError(
            f"{name}: no frame of the training or validation split is near a beat; look at the beats' files"
        )
    valid = frames["valid"]
    return select(
        examples["train"],
        examples["valid"],
        ProbeLoss("multi", 1),
        replace(inputs.probe_settings, batch_items=settings.beats.batch_frames),
        partial(METRICS["ap"], truth),
        rates=settings.rates,
        seeds=settings.seeds,
        name=name,
        device=inputs.encoder.device,
        rescore=lambda trained: valid.points(trained.predict(valid.features), name)[main].mean(axis=1),
    )


def _estimate(inputs: EvalInputs, points: Points) -> Estimate:
    return Estimate(float(points.mean()), *interval(points, inputs.settings.bootstrap, inputs.seed))


def _robustness(inputs: EvalInputs, selection: Selection, test: _Frames) -> dict[str, list[dict[str, Any]]]:
    """Score the chosen probes on some test clips, degraded."""

    def score(embedded: Embeddings, clips: Sequence[Clip]) -> Estimate:
        frames = _Frames.of(embedded, clips, range(len(clips)))
        points = frames.points(selection.trained.predict(frames.features), inputs.task.name)
        return _estimate(inputs, points[inputs.task.metrics[0]])

    clips = sample_clips(test.clips, inputs.settings.robustness.clips)
    return robustness_curves(inputs.encoder, inputs.task, clips, score, inputs.caches)
