from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mert_core.errors import MertError
from mert_core.probing.separation.data import (
    Excerpts,
    MixPart,
    SeparationExcerpt,
    StoredTrack,
    draw_remixes,
    store_tracks,
    windows_of_track,
)
from mert_core.probing.separation.model import HeadShape
from mert_core.probing.separation.score import TrackFeatures, track_ratios
from mert_core.probing.separation.train import HeadSpec, SeparationSettings, TrainedHeads, train_heads
from tests.probing.separation.material import RATE, STATES, WIDTH, clips, features_of

STEMS = ("left", "right")
RECIPE = SeparationSettings(hidden=16, layers=1, batch_mixes=4, every_frames=2, max_epochs=12, patience=4)


def _windows(tracks: list[StoredTrack], seconds: float) -> list[SeparationExcerpt]:
    return [
        SeparationExcerpt(
            sound, tuple(MixPart(track.path, track.identity, row, sound.parts[0].start) for row in (1, 2))
        )
        for track in tracks
        for sound in windows_of_track(track, seconds)
    ]


def _train(
    folder: Path, informed: bool, specs: list[HeadSpec], recipe: SeparationSettings = RECIPE, channels: int = 1
) -> tuple[TrainedHeads, np.ndarray]:
    """Train on remixes; return the heads and their ratios on a track that is new."""
    tracks, held_out, new = (
        store_tracks(clips(split, count, channels, seed=seed), STEMS, folder)
        for split, count, seed in (("train", 6, 0), ("valid", 2, 50), ("test", 1, 90))
    )
    mixes = [SeparationExcerpt(sound, sound.parts) for sound in draw_remixes(tracks, 2, 1.0, 3, 0)]
    features, offsets = features_of(mixes, informed)
    train = Excerpts(mixes, features, offsets, RATE)
    windows = _windows(held_out, 1.0)
    valid = Excerpts(windows, *features_of(windows, informed, features.moments), RATE)
    shape = HeadShape(STATES, WIDTH, recipe.hidden, recipe.layers, train.channels)
    trained = train_heads(specs, train, valid, shape, recipe)

    windows = _windows(new, 1.0)
    bounds = np.array([window.sound.parts[0].start for window in windows] + [new[0].samples])
    track = TrackFeatures(*features_of(windows, informed, features.moments), bounds, RATE)
    ensembles = [trained.heads[first : first + 2] for first in range(0, len(specs), 2)]
    return trained, track_ratios(ensembles, track, new[0])


def test_features_that_show_the_mask_separate_and_others_do_not(tmp_path: Path) -> None:
    specs = [HeadSpec(stem, 1e-2, seed) for seed in (0, 1) for stem in (0, 1)]
    trained, informed = _train(tmp_path, True, specs)
    _, uninformed = _train(tmp_path, False, specs)
    assert informed.shape == (2, 2, 2)
    assert (informed[0] > 9).all()
    assert (uninformed[0] < 5).all()
    assert (informed[1] > uninformed[1] + 4).all()
    assert all(head.state_weights[1] > head.state_weights[0] for head in trained.heads)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_head_among_others_is_the_head_alone(tmp_path: Path, channels: int) -> None:
    recipe = SeparationSettings(hidden=8, layers=2, batch_mixes=8, crop_frames=30, every_frames=3, max_epochs=3)
    specs = [HeadSpec(stem, rate, seed) for seed in (0, 1) for rate in (1e-2, 1e-4) for stem in (0, 1)]
    together, _ = _train(tmp_path, True, specs, recipe, channels)
    for number in (1, 6):
        spec = specs[number]
        alone, _ = _train(tmp_path, True, [spec, HeadSpec(1 - spec.stem, 5e-3, spec.seed)], recipe, channels)
        assert alone.losses[0] == together.losses[number]
        for weight, expected in zip(alone.heads[0].parameters(), together.heads[number].parameters(), strict=True):
            assert torch.equal(weight, expected)
    assert len(set(together.losses.round(9))) == len(specs)


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    specs = [HeadSpec(0, 0.1, 0), HeadSpec(1, 1.0, 0)]
    recipe = SeparationSettings(hidden=8, layers=1, batch_mixes=4, max_epochs=9, patience=1)
    trained, _ = _train(tmp_path, True, specs, recipe)
    assert (trained.epochs < 8).any()  # one stopped before the last epoch
    for number, epochs in enumerate(trained.epochs):
        until_then, _ = _train(tmp_path, True, specs, replace(recipe, max_epochs=int(epochs)))
        assert until_then.losses[number] == trained.losses[number]
        for weight, expected in zip(
            trained.heads[number].parameters(), until_then.heads[number].parameters(), strict=True
        ):
            assert torch.equal(weight, expected)


def test_recipes_that_cannot_be_are_refused() -> None:
    with pytest.raises(MertError, match="even"):
        SeparationSettings(hidden=7)


def test_excerpts_that_do_not_fit_into_memory_are_transformed_anew(tmp_path: Path) -> None:
    tracks = store_tracks(clips("train", 2, 2), STEMS, tmp_path)
    mixes = [SeparationExcerpt(sound, sound.parts) for sound in draw_remixes(tracks, 2, 1.0, 3, 0)]
    features, offsets = features_of(mixes, True)
    held, anew = (
        Excerpts(mixes, features, offsets, RATE, **size)
        for size in ({}, {"resident_bytes": 0})  # type: ignore[arg-type]
    )
    which, starts = np.array([3, 0, 5]), np.array([7, 0, 30])
    expected = held.spectra(which, starts, 40, 3)
    found = anew.spectra(which, starts, 40, 3)
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= expected.abs() * 2**-11 + 1e-4).all(), "what is held is rounded to 11 bits"
    assert torch.equal(anew.features(which, starts, 40), held.features(which, starts, 40))
