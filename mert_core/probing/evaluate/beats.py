"""Beats: a probe per frame says how likely a beat is there, and a model of tempo says where the beats are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Split
from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.beat_decoder import TOLERANCES, TempoModel, decode, f_measures, frame_targets, trim_seconds_of
from mert_core.probing.embeddings import FeatureView
from mert_core.probing.evaluate.base import EmbeddedClips, EvalInputs, ProbeEvaluator
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import ProbeLoss
from mert_core.probing.results import Predictions
from mert_core.probing.selection import Selection, select
from mert_core.probing.tasks import TaskKind
from mert_core.probing.train import Examples, TrainedProbes


class BeatEvaluator(ProbeEvaluator):
    """Scores the times of beats.

    A probe's epoch is that of the best average precision over frames, which is cheap; input and rate are those of the
    best F-measure of beats within 70 ms, as the tempo model decodes them from whole clips.
    """

    kind = TaskKind.BEATS
    section = "beats"
    rules: ClassVar = {
        "loss": "binary cross-entropy per frame, beats widened by one frame",
        "epoch": "frame-wise average precision on validation",
        "decoder": "bar-pointer model of one beat, 55 to 215 beats per minute, transition 100, observation 16",
        "scored": "beats from 5 s on, as mir_eval has it; all beats of clips shorter than 15 s",
    }

    def select(self, inputs: EvalInputs) -> Selection:
        """Train a probe per frame; choose on validation by decoded beats."""
        train, valid = self._examples(inputs, "train"), self._examples(inputs, "valid")
        if not (train.truth.any() and valid.truth.any()):
            raise MertError(
                f"{inputs.task.name}: no frame of the training or validation split is near a beat; look at the beats' "
                "files"
            )

        def decoded_scores(trained: TrainedProbes) -> NDArray[np.float64]:
            predictions = self.predict(inputs, trained, inputs.usable("valid"))
            return predictions.points[inputs.task.metrics[0]].mean(axis=1)

        return select(
            train,
            valid,
            ProbeLoss("multi", 1),
            replace(inputs.probe_settings, batch_items=inputs.settings.beats.batch_frames),
            partial(METRICS["ap"], valid.truth),
            rates=inputs.settings.rates,
            seeds=inputs.settings.seeds,
            name=inputs.task.name,
            device=inputs.encoder.device,
            rescore=decoded_scores,
        )

    def _examples(self, inputs: EvalInputs, split: Split) -> Examples:
        """Return a random share of a split's frames; the target is whether a beat is near."""
        clips, share = inputs.usable(split), inputs.settings.beats.frames_share
        tracks, frame_rate = _tracks(clips)
        targets = []
        for track in tracks:
            frames = int(track.frame_indices[-1]) + 1
            targets.append(frame_targets(track.beats, frames, frame_rate)[track.frame_indices])
        rows, truth = clips.embedded.rows(clips.indices), np.concatenate(targets)
        if share < 1:
            count = max(1, round(share * len(rows)))
            chosen = np.sort(np.random.default_rng(inputs.seed).choice(len(rows), count, replace=False))
            rows, truth = rows[chosen], truth[chosen]
        return Examples(FeatureView(clips.embedded, rows), truth[:, None])

    def predict(self, inputs: EvalInputs, trained: TrainedProbes, clips: EmbeddedClips) -> Predictions:
        """Return the F-measures of each probe's decoded beats."""
        tracks, frame_rate = _tracks(clips)
        model, outputs = TempoModel(frame_rate), trained.predict(clips.features)
        work = [(logits, track) for logits in outputs[..., 0] for track in tracks]

        def scores(pair: tuple[NDArray[np.float32], _BeatTrack]) -> list[float]:
            logits, track = pair
            likely = 0.5 + 0.5 * np.tanh(0.5 * logits[track.rows].astype(np.float64))
            activation = np.interp(np.arange(track.frame_indices[-1] + 1), track.frame_indices, likely)
            return list(f_measures(track.beats, decode(activation, model), track.trim_seconds).values())

        title = f"beats {inputs.task.name}"
        with single_threads() as pool:
            by_pair = list(tqdm(pool.map(scores, work), title, len(work), unit="clip", leave=False))
        by_metric = np.array(by_pair).reshape(len(outputs), len(tracks), len(TOLERANCES))
        points = {metric: by_metric[..., number] for number, metric in enumerate(TOLERANCES)}
        return Predictions(clips.ids, points={name: points[name] for name in inputs.task.metrics})


@dataclass(frozen=True)
class _BeatTrack:
    """One clip, as it is decoded.

    Attributes:
        beats: true ones, in seconds.
        rows: its rows among those of all clips that are decoded together.
        frame_indices: frame of each row, counted from the clip's start (rows,). Windows leave gaps.
        trim_seconds: how much of its start is not scored.
    """

    beats: NDArray[np.float64]
    rows: slice
    frame_indices: NDArray[np.int64]
    trim_seconds: float


def _tracks(clips: EmbeddedClips) -> tuple[list[_BeatTrack], float]:
    """Return the clips, and how many frames they have per second."""
    embedded, tracks, start = clips.embedded, [], 0
    assert embedded.frame_rate is not None
    for clip, index in zip(clips.clips, clips.indices, strict=True):
        frame_indices = np.round(embedded.times(index) * embedded.frame_rate).astype(np.int64)
        rows = slice(start, start + len(frame_indices))
        trim_seconds = trim_seconds_of(embedded.samples(index) / SAMPLE_RATE)
        tracks.append(_BeatTrack(np.asarray(clip.label, dtype=np.float64), rows, frame_indices, trim_seconds))
        start = rows.stop
    return tracks, embedded.frame_rate
