from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mert_core.config import ProbeConfig, load_config
from mert_core.errors import MertError
from mert_core.probing.separation import data
from mert_core.probing.separation.data import Excerpts, draw_remixes, store_tracks, windows_of_track
from mert_core.probing.separation.score import track_ratios, window_features
from mert_core.probing.separation.train import HeadSpec, HeadTraining, train_heads
from tests.probing.separation.material import RATE, clips, features_of

STEMS = ("left", "right")


def _settings(patience: int = 10, **own: int) -> ProbeConfig:
    """Return settings of heads that read all frames of a mix."""
    whole = {"crop_frames": 0, "every_frames": 1, "layers": 1, "hidden": 8, "batch_mixes": 4}
    settings = ProbeConfig(patience=patience, plateau_patience=4)
    return settings.model_copy(update={"separation": settings.separation.model_copy(update=whole | own)})


def _train(
    folder: Path, informed: bool, specs: list[HeadSpec], settings: ProbeConfig, channels: int = 1
) -> tuple[list[HeadTraining], np.ndarray]:
    """Train on remixes; return the heads and their ratios on a track that is new."""
    tracks, held_out, (new,) = (
        store_tracks(clips(split, count, channels, seed=seed), STEMS, folder)
        for split, count, seed in (("train", 6, 0), ("valid", 2, 50), ("test", 1, 90))
    )
    mixes = draw_remixes(tracks, 1.0, 3, 0)
    features, offsets = features_of(mixes, informed)
    train = Excerpts(mixes, features, offsets, RATE)
    windows = [window for track in held_out for window in windows_of_track(track, 1.0)]
    valid = Excerpts(windows, *features_of(windows, informed, features.moments), RATE)
    trained = train_heads(specs, train, valid, settings)

    windows = windows_of_track(new, 1.0)
    shown = window_features(windows, *features_of(windows, informed, features.moments), RATE)
    heads = [run.head for run in trained]
    return trained, track_ratios([heads[first : first + 2] for first in range(0, len(specs), 2)], shown, new)


def _assert_same(run: HeadTraining, expected: HeadTraining) -> None:
    assert run.best_loss == expected.best_loss
    for weight, other in zip(run.head.parameters(), expected.head.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_features_that_show_the_mask_separate_and_others_do_not(tmp_path: Path) -> None:
    specs = [HeadSpec(stem, 1e-2, seed) for seed in (0, 1) for stem in (0, 1)]
    settings = _settings(patience=4, hidden=16, every_frames=2, max_epochs=12)
    trained, informed = _train(tmp_path, True, specs, settings)
    _, uninformed = _train(tmp_path, False, specs, settings)
    assert informed.shape == (2, 2, 2)
    assert (informed[0] > 9).all()
    assert (uninformed[0] < 5).all()
    assert (informed[1] > uninformed[1] + 4).all()
    assert all(run.head.state_weights[1] > run.head.state_weights[0] for run in trained)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_head_among_others_is_the_head_alone(tmp_path: Path, channels: int) -> None:
    settings = _settings(layers=2, batch_mixes=8, crop_frames=30, every_frames=3, max_epochs=3)
    specs = [HeadSpec(stem, rate, seed) for seed in (0, 1) for rate in (1e-2, 1e-4) for stem in (0, 1)]
    together, _ = _train(tmp_path, True, specs, settings, channels)
    for number in (1, 6):
        spec = specs[number]
        alone, _ = _train(tmp_path, True, [spec, HeadSpec(1 - spec.stem, 5e-3, spec.seed)], settings, channels)
        _assert_same(alone[0], together[number])
    assert len({round(run.best_loss, 9) for run in together}) == len(specs)


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    specs = [HeadSpec(0, 0.1, 0), HeadSpec(1, 1.0, 0)]
    trained, _ = _train(tmp_path, True, specs, _settings(patience=1, max_epochs=9))
    assert min(run.best_epoch for run in trained) < 8  # one stopped before the last epoch
    for number, run in enumerate(trained):
        until_then, _ = _train(tmp_path, True, specs, _settings(patience=1, max_epochs=run.best_epoch))
        _assert_same(until_then[number], run)


def test_a_width_that_two_directions_cannot_share_is_refused(repository: Path) -> None:
    with pytest.raises(MertError, match=r"probe\.separation\.hidden.*multiple of 2"):
        load_config(repository / "params.yaml", ["probe.separation.hidden=7"])


def test_excerpts_that_do_not_fit_into_memory_are_transformed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixes = draw_remixes(store_tracks(clips("train", 2, 2), STEMS, tmp_path), 1.0, 3, 0)
    features, offsets = features_of(mixes, True)
    held = Excerpts(mixes, features, offsets, RATE)
    monkeypatch.setattr(data, "RESIDENT_BYTES", 0)
    anew = Excerpts(mixes, features, offsets, RATE)
    which, starts = np.array([3, 0, 5]), np.array([7, 0, 30])
    expected = held.spectra(which, starts, 40, 3)
    found = anew.spectra(which, starts, 40, 3)
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= expected.abs() * 2**-11 + 1e-4).all(), "what is held is rounded to 11 bits"
    assert torch.equal(anew.features(which, starts, 40), held.features(which, starts, 40))
