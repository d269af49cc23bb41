"""Separation: heads on the learned weighted sum of hidden states, judged by what is left of each stem's error."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.config import Split
from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.embeddings import FeatureView, embeddings
from mert_core.probing.evaluate.base import EvalInputs, Evaluator
from mert_core.probing.features import Standardized, moments
from mert_core.probing.metrics import Points
from mert_core.probing.probe_bank import WEIGHTED
from mert_core.probing.results import Estimate, Predictions, TaskResult
from mert_core.probing.selection import input_name
from mert_core.probing.separation.data import Excerpts, StoredTrack, draw_remixes, store_tracks, windows_of_track
from mert_core.probing.separation.score import track_ratios, window_features
from mert_core.probing.separation.train import HeadSpec, HeadTraining, train_heads
from mert_core.probing.significance import MUSEVAL, interval, is_median, resampled_scores
from mert_core.probing.tasks import Chunking, TaskKind


class SeparationEvaluator(Evaluator):
    """Stems of a mixture.

    The main figures are SDR of whole tracks, mean over tracks; beside them stand museval's, medians over windows of 1 s
    and then over tracks.
    """

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
        """Train a head per stem on fixed remixes; choose the rate on validation by SDR; score the test split once.

        Raises:
            MertError: a split has no clip, a stem is missing, the model has diverged, or the task is to be asked again
                of degraded music, which has no stems to compare with.
        """
        task, settings = inputs.task, inputs.settings
        if inputs.wants_robustness:
            raise MertError(
                f"probe.robustness.tasks has {task.name}; there are no stems of degraded mixtures: remove it"
            )
        if task.chunking.seconds is None or task.chunking.limit_seconds is not None:
            raise MertError(f"{task.name} needs windows of so many seconds without a limit, found {task.chunking}")
        with ExitStack() as stack:
            caches = inputs.caches or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            music = _SeparationMusic(inputs, caches, task.chunking.seconds)
            heads = music.train()
            rates = {rate: music.validation(heads, rate) for rate in sorted(set(settings.separation.rates))}
            rate = max(rates, key=rates.__getitem__)
            if not np.isfinite(rates[rate]):
                raise MertError(f"{task.name}: heads diverged at each of the rates {list(rates)}. Try lower rates.")
            read = input_name(WEIGHTED if len(music.states) > 1 else music.states[0])
            inputs.before_test(read, rate)
            points = music.points(heads, "test", rate)
        _check_scored(task.name, points, "test")

        scores: dict[str, NDArray[np.float64]] = {}  # of all tracks and of resamples, (1 + resamples,)
        for name, each in points.items():
            scores[name] = resampled_scores(each, is_median(name), settings.bootstrap, inputs.seed)
        main = [f"sdr_{stem}" for stem in music.stems]
        ids = tuple(track.track_id for track in music.tracks["test"])
        return TaskResult(
            task=task.name,
            metric=task.metrics[0],
            summary=_estimate(np.mean([scores[name] for name in main], axis=0)),
            metrics={name: _estimate(each) for name, each in scores.items()},
            tracks=len(ids),
            classes=len(music.stems),
            input=read,
            rate=rate,
            validation=rates[rate],
            per_seed=[_mean_of({name: points[name][[seed]] for name in main}) for seed in range(len(settings.seeds))],
            by_input=[(read, rates[rate])],
            predictions=Predictions(ids, points=points),
        )


class _SeparationMusic:
    """Tracks in windows, remixes of them, their embeddings, and what heads make of them."""

    def __init__(self, inputs: EvalInputs, caches: Path, window_seconds: float) -> None:
        self.inputs, self.stems, self.device = inputs, inputs.clips.classes, inputs.encoder.device
        task = inputs.task
        self.tracks: dict[Split, list[StoredTrack]] = {}
        for split in ("train", "valid", "test"):
            clips = inputs.clips.of(split)
            if not clips:
                raise MertError(f"{task.name}: the {split} split has no track")
            self.tracks[split] = store_tracks(clips, self.stems, caches, f"{task.name} {split}")
        channels = {track.channels for tracks in self.tracks.values() for track in tracks}
        if len(channels) > 1:
            raise MertError(
                f"{task.name}: tracks have {sorted(channels)} channels, expected the same number everywhere"
            )

        # The remixes come first, then the windows of the other tracks, of which ``spans`` says where they are.
        own = inputs.settings.separation
        self.mixtures = draw_remixes(self.tracks["train"], window_seconds, own.mixes_per_track, inputs.seed)
        self.remixes, self.spans = len(self.mixtures), dict[str, tuple[int, int]]()
        for track in [*self.tracks["valid"], *self.tracks["test"]]:
            windows = windows_of_track(track, window_seconds)
            self.spans[track.track_id] = len(self.mixtures), len(self.mixtures) + len(windows)
            self.mixtures += windows
        self.embedded = embeddings(inputs.encoder, self.mixtures, Chunking(), task.pooling, inputs.caches, task.name)
        if missing := self.embedded.missing:
            number, reason = next(iter(missing.items()))
            raise MertError(
                f"{task.name}: {len(missing)} excerpts cannot be embedded ({reason}), the first is of "
                f"{self.mixtures[number].parts[0].track.path}. Leave that track out."
            )
        self.states = [0] if self.embedded.states == 1 else list(range(1, self.embedded.states))
        training_rows = np.arange(self.embedded.offsets[self.remixes])
        self.moments = moments(FeatureView(self.embedded, training_rows, self.states))

    def _features(self, start: int, stop: int, hold: bool) -> tuple[Standardized, NDArray[np.int64]]:
        """Return standardized features of some mixtures, and where each begins among their rows."""
        offsets = self.embedded.offsets[start : stop + 1]
        view = FeatureView(self.embedded, np.arange(offsets[0], offsets[-1]), self.states)
        return Standardized(view, self.moments, self.device, hold), offsets - offsets[0]

    def _excerpts(self, start: int, stop: int) -> Excerpts:
        assert self.embedded.frame_rate is not None
        return Excerpts(self.mixtures[start:stop], *self._features(start, stop, hold=True), self.embedded.frame_rate)

    def train(self) -> list[HeadTraining]:
        """Train stems × rates × seeds."""
        settings = self.inputs.settings
        valid_end = self.spans[self.tracks["valid"][-1].track_id][1]
        train, valid = self._excerpts(0, self.remixes), self._excerpts(self.remixes, valid_end)
        specs = [
            HeadSpec(stem, rate, seed)
            for rate in settings.separation.rates
            for seed in settings.seeds
            for stem in range(len(self.stems))
        ]
        return train_heads(specs, train, valid, settings, self.inputs.task.name)

    def validation(self, heads: list[HeadTraining], rate: float) -> float:
        """Return the SDR at a rate on the validation split: the mean over its stems, tracks and seeds.

        It is −∞ where a head has diverged: the error of none of its epochs was finite.

        Raises:
            MertError: no track of the split has all stems.
        """
        if not all(np.isfinite(head.best_loss) for head in heads if head.spec.rate == rate):
            return -np.inf
        points = self.points(heads, "valid", rate)
        main = {name: each for name, each in points.items() if not is_median(name)}
        _check_scored(self.inputs.task.name, main, "validation")
        return _mean_of(main)

    def points(self, heads: list[HeadTraining], split: Split, rate: float) -> dict[str, Points]:
        """Return each figure of each seed and track of a split (seeds, tracks); NaN where a stem is silent."""
        by_spec = {head.spec: head.head for head in heads}
        ensembles = [
            [by_spec[HeadSpec(stem, rate, seed)] for stem in range(len(self.stems))]
            for seed in self.inputs.settings.seeds
        ]

        def ratios(track: StoredTrack) -> NDArray[np.float64]:
            assert self.embedded.frame_rate is not None
            start, stop = self.spans[track.track_id]
            features = self._features(start, stop, hold=False)
            windows = window_features(self.mixtures[start:stop], *features, self.embedded.frame_rate)
            return track_ratios(ensembles, windows, track, self.device)

        tracks, title = self.tracks[split], f"separate {self.inputs.task.name} {split}"
        with single_threads(self.device) as pool:
            by_track = list(tqdm(pool.map(ratios, tracks), title, len(tracks), unit="track", leave=False))
        by_figure = np.stack(by_track, axis=2)  # (2, seeds, tracks, stems)
        return {
            f"sdr_{stem}{suffix}": by_figure[kind, :, :, number]
            for kind, suffix in enumerate(("", MUSEVAL))
            for number, stem in enumerate(self.stems)
        }


def _check_scored(task: str, points: Mapping[str, Points], split: str) -> None:
    unscored = [name for name, each in points.items() if np.isnan(each.mean(axis=0)).all()]
    if unscored:
        raise MertError(
            f"{task}: {', '.join(unscored)} cannot be told: in no {split} track do all stems sound. "
            "Look at the data set's stems."
        )


def _mean_of(points: Mapping[str, Points]) -> float:
    """Return the mean over stems of each one's mean over seeds and the tracks where it has a ratio."""
    return float(np.mean([np.nanmean(each.mean(axis=0)) for each in points.values()]))


def _estimate(scores: NDArray[np.float64]) -> Estimate:
    """Return the first of some scores, that of all tracks, with the interval of the others."""
    return Estimate(float(scores[0]), *interval(scores[1:]))
