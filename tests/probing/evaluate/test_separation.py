from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mert_core.config import load_config
from mert_core.datasets.base import Clip, ClipSet
from mert_core.errors import MertError
from mert_core.probing.encoders.base import MelStatistics
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.evaluate.separation import _SeparationTask
from mert_core.probing.significance import mean_of, median_of
from mert_core.probing.tasks import TASKS, Chunking
from tests.probing.evaluate.planted import evaluate
from tests.probing.separation.material import ArraySound, turns

STEMS = ("dull", "bright")


def _clips(channels: int = 1) -> ClipSet:
    """Dull and bright noise that sound in turn."""
    clips = []
    for split, count, first in (("train", 5, 0), ("valid", 2, 50), ("test", 3, 90)):
        for number in range(count):
            dull, bright = turns(channels, 36000, first + number)
            dull = np.cumsum(dull, axis=1, dtype=np.float64)
            dull = (dull - np.convolve(dull.mean(axis=0), np.ones(31) / 31, "same")).astype(np.float32)
            bright = np.diff(bright, axis=1, prepend=0).astype(np.float32)
            stems = dict(zip(STEMS, map(ArraySound, (dull, bright)), strict=True))
            clips.append(Clip(f"{split}-{number}", split, ArraySound(dull + bright), stems))  # type: ignore[arg-type]
    return ClipSet("demo", "musdb18", tuple(clips), STEMS)


def _inputs(clips: ClipSet, repository: Path, caches: Path | None, **changes: Any) -> EvalInputs:
    settings = load_config(repository / "params.yaml").probe.of_demo()
    own = {
        "hidden": 16,
        "mixes_per_track": 3,
        "batch_mixes": 4,
        "crop_frames": 60,
        "rates": [1e-4, 2e-2],
        "max_epochs": 10,
    }
    separation = settings.separation.model_copy(update=own | changes)
    settings = settings.model_copy(update={"separation": separation, "bootstrap": 200})
    task = replace(TASKS["demo/musdb18"], chunking=Chunking(1.0))
    return EvalInputs(task, clips, MelStatistics(16), settings, 7, caches, lambda read, rate: None)


def test_stems_are_separated_by_what_the_encoder_hears(repository: Path, tmp_path: Path) -> None:
    announced: list[tuple[int | str, float]] = []
    inputs = _inputs(_clips(), repository, tmp_path)
    result = evaluate(replace(inputs, before_test=lambda read, rate: announced.append((read, rate))))
    assert result.rate == 2e-2, "at 1e-4 nothing is learned in so few steps"
    assert result.input == 0, "mel statistics have one state"
    assert announced == [(0, 2e-2)]
    assert set(result.metrics) == {f"sdr_{stem}{kind}" for stem in STEMS for kind in ("", "_museval")}
    assert result.summary.value > 6
    assert result.summary.value == pytest.approx(np.mean([result.metrics[f"sdr_{stem}"].value for stem in STEMS]))
    assert np.mean(result.per_seed) == pytest.approx(result.summary.value)
    assert all(figure.low <= figure.value <= figure.high for figure in [*result.metrics.values(), result.summary])
    assert result.predictions.points["sdr_dull"].shape == (3, 3)
    assert (result.tracks, result.classes, result.left_out, result.robustness) == (3, 2, {}, {})
    assert len(list((tmp_path / "stems").iterdir())) == 10


def test_the_test_split_decides_nothing_and_is_announced_before_it_is_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    points = _SeparationTask.points
    monkeypatch.setattr(
        _SeparationTask,
        "points",
        lambda self, heads, split, rate: (seen.append(split), points(self, heads, split, rate))[1],
    )
    honest = _clips()
    swapped = tuple(
        replace(clip, label=dict(zip(STEMS, reversed(clip.label.values()), strict=True)))  # type: ignore[union-attr]
        if clip.split == "test"
        else clip
        for clip in honest.clips
    )
    one, two = (
        evaluate(replace(_inputs(clips, repository, None), before_test=lambda read, rate: seen.append("announced")))
        for clips in (honest, replace(honest, clips=swapped))
    )
    assert one.summary.value > two.summary.value + 3
    assert (one.rate, one.validation) == (two.rate, two.validation)
    assert seen == ["valid", "valid", "announced", "test"] * 2


def test_heads_that_diverge_are_not_scored(repository: Path) -> None:
    inputs = _inputs(_clips(), repository, None, max_epochs=2, rates=[1e38])
    with pytest.raises(MertError, match="heads diverged at each of the rates"):
        evaluate(replace(inputs, before_test=lambda read, rate: pytest.fail("the test split was read")))
    inputs = _inputs(_clips(), repository, None, max_epochs=2, rates=[1e38, 1e-3])
    assert evaluate(inputs).rate == 1e-3


def test_a_silent_stem_counts_for_nothing(repository: Path) -> None:
    clips = _clips(channels=2)
    *others, last = clips.clips
    quiet = ArraySound(np.zeros((2, 36000), dtype=np.float32))
    silent = replace(last, sound=last.label["dull"], label={**last.label, "bright": quiet})
    inputs = _inputs(replace(clips, clips=(*others, silent)), repository, None, rates=[1e-2], max_epochs=1)
    result = evaluate(inputs)
    assert np.isnan(result.predictions.points["sdr_bright"][:, 2]).all()
    known = result.predictions.points["sdr_bright"][:, :2]
    assert result.metrics["sdr_bright"].value == pytest.approx(known.mean())
    assert np.isfinite([result.summary.low, result.summary.high]).all()


def test_bad_material_is_named(repository: Path, tmp_path: Path) -> None:
    clips = _clips()
    first, *others = clips.clips
    lacking = replace(first, label={"dull": first.label["dull"]})
    with pytest.raises(MertError, match="no stem bright"):
        evaluate(_inputs(replace(clips, clips=(lacking, *others)), repository, tmp_path))
    short = replace(first, label={**first.label, "dull": ArraySound(first.label["dull"].channels()[:, :20000])})
    with pytest.raises(MertError, match="do not fit"):
        evaluate(_inputs(replace(clips, clips=(short, *others)), repository, tmp_path))
    with pytest.raises(MertError, match="test split"):
        evaluate(_inputs(replace(clips, clips=(*clips.of("train"), *clips.of("valid"))), repository, tmp_path))


def test_resampled_means_and_medians_are_those_of_the_drawn_tracks() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=9)
    values[4] = np.nan
    drawn = generator.integers(0, 9, (50, 9))
    counts = np.stack([np.bincount(row, minlength=9) for row in drawn]).astype(np.float32)
    np.testing.assert_allclose(mean_of(values, counts), np.nanmean(values[drawn], axis=1))
    np.testing.assert_allclose(median_of(values, counts), np.nanmedian(values[drawn], axis=1))
    assert np.isnan(mean_of(np.full(3, np.nan), counts[:, :3])).all()
    assert np.isnan(median_of(np.full(3, np.nan), counts[:, :3])).all()


def test_a_stem_that_no_track_has_is_named(repository: Path) -> None:
    clips = _clips()
    quiet = ArraySound(np.zeros((1, 36000), dtype=np.float32))
    without = tuple(
        replace(clip, label={**clip.label, "bright": quiet}) if clip.split == "test" else clip for clip in clips.clips
    )
    inputs = _inputs(replace(clips, clips=without), repository, None, rates=[1e-2], max_epochs=1, mixes_per_track=1)
    with pytest.raises(MertError, match="sdr_bright"):
        evaluate(inputs)
