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
from mert_core.probing.evaluate import separation
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.tasks import TASKS, Chunking
from tests.probing.evaluate.planted import evaluate, relabeled, small_inputs, without
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


def _inputs(clips: ClipSet, caches: Path | None = None, **changes: Any) -> EvalInputs:
    own = {"hidden": 16, "mixes_per_track": 3, "batch_mixes": 4, "crop_frames": 60, "rates": [2e-2], "max_epochs": 10}
    settings = load_config(Path(__file__).parents[3] / "params.yaml").probe.of_demo().separation
    task = replace(TASKS["demo/musdb18"], chunking=Chunking(1.0))
    return small_inputs(task, clips, MelStatistics(16), caches, separation=settings.model_copy(update=own | changes))


def _silenced(clips: ClipSet) -> ClipSet:
    """Return the clips, where in the test split nothing bright sounds."""
    quiet = ArraySound(np.zeros((1, 36000), dtype=np.float32))
    return relabeled(clips, "test", lambda stems: {**stems, "bright": quiet})


def test_stems_are_separated_by_what_the_encoder_hears(tmp_path: Path) -> None:
    result = evaluate(_inputs(_clips(), tmp_path, rates=[1e-4, 2e-2]))
    assert result.rate == 2e-2, "at 1e-4 nothing is learned in so few steps"
    assert result.input == 0, "mel statistics have one state"
    assert set(result.metrics) == {f"sdr_{stem}{kind}" for stem in STEMS for kind in ("", "_museval")}
    assert result.summary.value > 6
    assert result.summary.value == pytest.approx(np.mean([result.metrics[f"sdr_{stem}"].value for stem in STEMS]))
    assert np.mean(result.per_seed) == pytest.approx(result.summary.value)
    assert all(figure.low <= figure.value <= figure.high for figure in [*result.metrics.values(), result.summary])
    assert result.predictions.points["sdr_dull"].shape == (3, 3)
    assert (result.tracks, result.classes, result.left_out, result.robustness) == (3, 2, {}, {})
    assert len(list((tmp_path / "stems").iterdir())) == 10


def test_the_test_split_decides_nothing_and_is_announced_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    ratios = separation.track_ratios
    monkeypatch.setattr(
        separation, "track_ratios", lambda *args: (seen.append(args[2].track_id.partition("-")[0]), ratios(*args))[1]
    )
    honest = _clips()
    swapped = relabeled(honest, "test", lambda stems: dict(zip(STEMS, reversed(stems.values()), strict=True)))
    one, two = (evaluate(_inputs(clips, rates=[1e-4, 2e-2]), seen) for clips in (honest, swapped))
    assert one.summary.value > two.summary.value + 3
    assert (one.rate, one.validation) == (two.rate, two.validation)
    assert seen == [*["valid"] * 4, (0, 2e-2), *["test"] * 3] * 2


def test_heads_that_diverge_are_not_scored() -> None:
    announced: list[Any] = []
    with pytest.raises(MertError, match="heads diverged at each of the rates"):
        evaluate(_inputs(_clips(), max_epochs=2, rates=[1e38]), announced)
    assert not announced, "the test split was read"
    assert evaluate(_inputs(_clips(), max_epochs=2, rates=[1e38, 1e-3])).rate == 1e-3


def test_a_silent_stem_counts_for_nothing() -> None:
    clips = _clips(channels=2)
    *others, last = clips.clips
    quiet = ArraySound(np.zeros((2, 36000), dtype=np.float32))
    silent = replace(last, sound=last.label["dull"], label={**last.label, "bright": quiet})
    result = evaluate(_inputs(replace(clips, clips=(*others, silent)), rates=[1e-2], max_epochs=1))
    assert np.isnan(result.predictions.points["sdr_bright"][:, 2]).all()
    known = result.predictions.points["sdr_bright"][:, :2]
    assert result.metrics["sdr_bright"].value == pytest.approx(known.mean())
    assert np.isfinite([result.summary.low, result.summary.high]).all()


def test_bad_material_is_named(tmp_path: Path) -> None:
    def shortened(stems: dict[str, ArraySound]) -> dict[str, ArraySound]:
        return {**stems, "dull": ArraySound(stems["dull"].channels()[:, :20000])}

    for clips, message in (
        (relabeled(_clips(), "train", lambda stems: {"dull": stems["dull"]}), "no stem bright"),
        (relabeled(_clips(), "train", shortened), "do not fit"),
        (without(_clips(), "test"), "test split"),
        (_silenced(_clips()), "sdr_bright"),
    ):
        with pytest.raises(MertError, match=message):
            evaluate(_inputs(clips, tmp_path, rates=[1e-2], max_epochs=1, mixes_per_track=1))
