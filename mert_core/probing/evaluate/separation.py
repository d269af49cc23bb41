"""Separation: heads on the learned weighted sum of hidden states, judged by what is left of each stem's error."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.config import Split
from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.embeddings import Embeddings, FeatureView, embeddings
from mert_core.probing.evaluate.base import EvalInputs, Evaluator
from mert_core.probing.features import Standardized, moments
from mert_core.probing.metrics import Points
from mert_core.probing.probe_bank import WEIGHTED
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.selection import input_name
from mert_core.probing.separation.data import (
    Excerpts,
    MixPart,
    RemixSound,
    SeparationExcerpt,
    StoredTrack,
    draw_remixes,
    store_tracks,
    windows_of_track,
)
from mert_core.probing.separation.model import HeadShape, SeparationHead
from mert_core.probing.separation.score import TrackFeatures, track_ratios
from mert_core.probing.separation.train import HeadSpec, SeparationSettings, TrainedHeads, train_heads
from mert_core.probing.significance import MUSEVAL, is_median, percentiles, resampled_scores
from mert_core.probing.tasks import Chunking, TaskKind


def evaluate_separation(case: EvalInputs) -> TaskResult:
    """Train a head per stem on fixed remixes; choose the rate on validation by SDR; score the test split once.

    The main figures are SDR of whole tracks, mean over tracks; beside them stand museval's, medians over windows of 1 s
    and then over tracks.

    Raises:
        MertError: a split has no clip, a stem is missing, the model has diverged, or the task is to be asked again of
            degraded music, which has no stems to compare with.
    """
    task = case.task
    if case.wants_robustness:
        raise MertError(f"probe.robustness.tasks has {task.name}; there are no stems of degraded mixtures: remove it")
    if task.chunking.seconds is None or task.chunking.limit_seconds is not None:
        raise MertError(f"{task.name} needs windows of so many seconds without a limit, found {task.chunking}")
    with ExitStack() as stack:
        caches = case.caches or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = _SeparationTask(case, caches, task.chunking.seconds)
        trained = work.train()
        rates = {rate: work.validation(trained, rate) for rate in sorted(set(case.settings.separation.rates))}
        rate = max(rates, key=rates.__getitem__)
        if not np.isfinite(rates[rate]):
            raise MertError(f"{task.name}: heads diverged at each of the rates {list(rates)}. Try lower rates.")
        read = input_name(WEIGHTED if len(work.inputs) > 1 else work.inputs[0])
        case.before_test(read, rate)
        points = work.points(trained, "test", rate)
    return _result(case, [track.track_id for track in work.tracks["test"]], points, read, rate, rates[rate])


class SeparationEvaluator(Evaluator):
    """Stems of a mixture."""

    kind = TaskKind.STEMS
    section = "separation"
    rules: ClassVar = {
        "loss": "squared error of magnitudes, one head per stem, STFT 2048/320",
        "input": "learned weighted sum",
        "epoch": "squared error of magnitudes on validation",
        "training": "remixes of stems of any tracks, gain .25 to 1.25, channels swapped, drawn once for all seeds",
        "decoder": "one Wiener EM iteration, no residual",
        "scored": "10 log10 of whole tracks' energies, mean over tracks; museval: median of 1 s, median over tracks",
    }

    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Return the signal-to-distortion ratios of the test split; see `evaluate_separation`."""
        return evaluate_separation(inputs)


def settings_of(case: EvalInputs) -> SeparationSettings:
    """Return how the parameters say heads are trained."""
    settings, own = case.settings, case.settings.separation
    return SeparationSettings(
        hidden=own.hidden,
        layers=own.layers,
        batch_mixes=own.batch_mixes,
        crop_frames=own.crop_frames,
        every_frames=own.every_frames,
        max_epochs=min(own.max_epochs, settings.max_epochs),
        patience=settings.patience,
        plateau_patience=settings.plateau_patience,
        plateau_factor=settings.plateau_factor,
    )


class _SeparationTask:
    """Tracks, their embeddings, and what is done with them."""

    def __init__(self, case: EvalInputs, caches: Path, window_seconds: float) -> None:
        self.case, self.window_seconds = case, window_seconds
        self.stems, self.device = case.clips.classes, case.encoder.device
        self.tracks = {split: self._stored(split, caches) for split in ("train", "valid", "test")}
        channels = {track.channels for tracks in self.tracks.values() for track in tracks}
        if len(channels) > 1:
            raise MertError(
                f"{case.task.name}: tracks have {sorted(channels)} channels, expected the same number everywhere"
            )
        self.mixes = draw_remixes(
            self.tracks["train"], len(self.stems), window_seconds, case.settings.separation.mixes_per_track, case.seed
        )
        self.embedded, self.first = self._embedded()
        self.inputs = [0] if self.embedded.states == 1 else list(range(1, self.embedded.states))
        self.moments = moments(self._rows(0, len(self.mixes)))

    def _stored(self, split: Split, caches: Path) -> list[StoredTrack]:
        clips = self.case.clips.of(split)
        if not clips:
            raise MertError(f"{self.case.task.name}: the {split} split has no track")
        return store_tracks(clips, self.stems, caches, f"{self.case.task.name} {split}")

    def _embedded(self) -> tuple[Embeddings, dict[str, int]]:
        """Return all embeddings, and where each track's windows begin among the sounds; remixes come first."""
        sounds, first = list(self.mixes), {}
        for split in ("valid", "test"):
            for track in self.tracks[split]:
                first[track.track_id] = len(sounds)
                sounds += windows_of_track(track, self.window_seconds)
        task, caches = self.case.task, self.case.caches
        embedded = embeddings(self.case.encoder, sounds, Chunking(), task.pooling, caches, task.name)
        if embedded.missing:
            number, reason = next(iter(embedded.missing.items()))
            raise MertError(
                f"{task.name}: {len(embedded.missing)} excerpts cannot be embedded ({reason}), the first is of "
                f"{sounds[number].parts[0].path}. Leave that track out."
            )
        return embedded, first

    def _rows(self, start: int, stop: int) -> FeatureView:
        offsets = self.embedded.offsets
        return FeatureView(self.embedded, np.arange(offsets[start], offsets[stop]), self.inputs)

    def _features(self, start: int, stop: int, hold: bool) -> tuple[Standardized, NDArray[np.int64], float]:
        """Return standardized features of some sounds, where each begins among their rows, and the frame rate."""
        assert self.embedded.frame_rate is not None
        offsets = self.embedded.offsets[start : stop + 1] - self.embedded.offsets[start]
        return Standardized(self._rows(start, stop), self.moments, self.device, hold), offsets, self.embedded.frame_rate

    def train(self) -> TrainedHeads:
        """Train stems × rates × seeds."""
        probe, settings = self.case.settings, settings_of(self.case)
        mixes = [SeparationExcerpt(sound, sound.parts) for sound in self.mixes]
        train = Excerpts(mixes, *self._features(0, len(mixes), True), self.device)
        windows = [
            self._excerpt(track, sound)
            for track in self.tracks["valid"]
            for sound in windows_of_track(track, self.window_seconds)
        ]
        valid = Excerpts(windows, *self._features(len(mixes), len(mixes) + len(windows), True), self.device)
        specs = [
            HeadSpec(stem, rate, seed)
            for rate in probe.separation.rates
            for seed in probe.seeds
            for stem in range(len(self.stems))
        ]
        shape = HeadShape(len(self.inputs), self.embedded.width, settings.hidden, settings.layers, train.channels)
        total = len(specs) * settings.max_epochs
        with tqdm(total=total, desc=f"heads {self.case.task.name}", unit="epoch", leave=False) as bar:
            return train_heads(specs, train, valid, shape, settings, bar)

    def _excerpt(self, track: StoredTrack, sound: RemixSound) -> SeparationExcerpt:
        start = sound.parts[0].start
        rows = range(1, len(self.stems) + 1)
        return SeparationExcerpt(sound, tuple(MixPart(track.path, track.identity, row, start) for row in rows))

    def validation(self, trained: TrainedHeads, rate: float) -> float:
        """Return the SDR at a rate on the validation split: the mean over its stems, tracks and seeds.

        It is −∞ where a head has diverged: the error of none of its epochs was finite.

        Raises:
            MertError: no track of the split has all stems.
        """
        losses = [loss for spec, loss in zip(trained.specs, trained.losses, strict=True) if spec.rate == rate]
        if not np.isfinite(losses).all():
            return -np.inf
        all_points = self.points(trained, "valid", rate)
        points = {name: all_points[name] for name in (f"sdr_{stem}" for stem in self.stems)}
        _check_scored(self.case.task.name, points, "validation")
        return _mean_of(points.values())

    def points(self, trained: TrainedHeads, split: Split, rate: float) -> dict[str, Points]:
        """Return each figure of each seed and track of a split (seeds, tracks); NaN where a stem is silent."""
        by_spec = dict(zip(trained.specs, trained.heads, strict=True))
        ensembles = [
            [by_spec[HeadSpec(stem, rate, seed)] for stem in range(len(self.stems))]
            for seed in self.case.settings.seeds
        ]
        of_track = partial(self._ratios, ensembles)
        tracks, name = self.tracks[split], f"separate {self.case.task.name} {split}"
        with tqdm(total=len(tracks), desc=name, unit="track", leave=False) as bar, single_threads(self.device) as pool:
            by_track = []
            for ratios in pool.map(of_track, tracks):
                by_track.append(ratios)
                bar.update()
        by_figure = np.stack(by_track, axis=2)  # (2, seeds, tracks, stems)
        return {
            f"sdr_{stem}{suffix}": by_figure[kind, :, :, number]
            for kind, suffix in enumerate(("", MUSEVAL))
            for number, stem in enumerate(self.stems)
        }

    def _ratios(self, ensembles: Sequence[Sequence[SeparationHead]], track: StoredTrack) -> NDArray[np.float64]:
        windows = windows_of_track(track, self.window_seconds)
        start = self.first[track.track_id]
        features, offsets, frame_rate = self._features(start, start + len(windows), False)
        bounds = np.array([*(window.parts[0].start for window in windows), track.samples])
        return track_ratios(ensembles, TrackFeatures(features, offsets, bounds, frame_rate), track, self.device)


def _check_scored(task: str, points: Mapping[str, Points], split: str) -> None:
    unscored = [name for name, each in points.items() if np.isnan(each.mean(axis=0)).all()]
    if unscored:
        raise MertError(
            f"{task}: {', '.join(unscored)} cannot be told: in no {split} track do all stems sound. "
            "Look at the data set's stems."
        )


def _mean_of(points: Iterable[Points]) -> float:
    """Return the mean over stems of each one's mean over seeds and the tracks where it has a ratio."""
    return float(np.mean([np.nanmean(each.mean(axis=0)) for each in points]))


def _result(
    case: EvalInputs, ids: Sequence[str], points: dict[str, Points], read: int | str, rate: float, validation: float
) -> TaskResult:
    _check_scored(case.task.name, points, "test")
    drawn = {
        name: resampled_scores(values, is_median(name), case.settings.bootstrap, case.seed)
        for name, values in points.items()
    }
    main = [f"sdr_{stem}" for stem in case.clips.classes]

    def estimate(value: NDArray[np.float64], resamples: NDArray[np.float64]) -> Estimate:
        return Estimate(float(value[0]), *percentiles(resamples))

    summary = estimate(*(np.mean([drawn[name][part] for name in main], axis=0) for part in (0, 1)))
    per_seed = [_mean_of(points[name][[seed]] for name in main) for seed in range(len(case.settings.seeds))]
    return TaskResult(
        task=case.task.name,
        metric=case.task.metrics[0],
        summary=summary,
        metrics={name: estimate(*scores) for name, scores in drawn.items()},
        tracks=len(ids),
        classes=len(case.clips.classes),
        input=read,
        rate=rate,
        validation=validation,
        per_seed=per_seed,
        by_input=[(read, validation)],
        predictions=Predictions(tuple(ids), points=points),
    )
