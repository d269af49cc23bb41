"""Crops, masks and noise are pure functions of (seed, epoch, index)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_core.errors import MertError
from mert_core.pretrain.data import CropSource, crop_samples
from mert_core.pretrain.masking import span_masks
from mert_core.pretrain.mixture import draw_snippets
from tests.pretrain.music import Tones, params


def source(split: str = "train", seed: int = 1, corrupt: bool = True, **changes: object) -> CropSource:
    music, codes = Tones().open()
    return CropSource(music, codes, params(**changes), split, seed, corrupt=corrupt)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, row)) for row in range(count)]


def test_masked_share_is_the_published_one() -> None:
    alone = np.mean([span_masks([g], 374, 0.8, 5).mean() for g in generators(400)])
    assert alone == pytest.approx(0.583, abs=0.005)
    trimmed = np.mean([span_masks(generators(16, seed), 374, 0.8, 5).mean() for seed in range(60)])
    assert trimmed == pytest.approx(0.54, abs=0.01)


def test_rows_have_equal_counts_and_spans_of_five() -> None:
    masks = span_masks(generators(8), 374, 0.8, 5)
    assert len(set(masks.sum(axis=1).tolist())) == 1
    untrimmed = span_masks(generators(1), 374, 0.8, 5)[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], untrimmed.astype(int), [0]])))
    assert (edges[1::2] - edges[::2]).min() >= 5


@pytest.mark.parametrize("frames", [2, 7, 36])
def test_short_clips_are_masked_too(frames: int) -> None:
    masks = span_masks(generators(20), frames, 0.1, 5)
    assert masks.any(axis=1).all() and masks.shape == (20, frames)


def test_snippets_come_from_others_and_fit() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_snippets(generator, 2, 4, 1000, 0.5, 3, (100, 400)) for _ in range(2000)]
    assert np.mean([bool(row) for row in drawn]) == pytest.approx(0.5, abs=0.04)
    flat = [snippet for row in drawn for snippet in row]
    assert {s.source for s in flat} == {0, 1, 3}
    assert {len(row) for row in drawn} == {0, 1, 2, 3}
    assert all(100 <= s.samples <= 400 and max(s.start, s.source_start) + s.samples <= 1000 for s in flat)
    assert draw_snippets(generator, 0, 1, 1000, 1.0, 3, (100, 400)) == []


def test_batches_do_not_depend_on_workers_or_history() -> None:
    whole = source().batch(8, 4, range(4))
    fresh = source()
    fresh.batch(100, 4, range(4))
    halves = [fresh.batch(8, 4, range(2)), fresh.batch(8, 4, range(2, 4))]
    assert torch.equal(whole.noisy, torch.cat([half.noisy for half in halves]))
    assert torch.equal(whole.codes, torch.cat([half.codes for half in halves]))
    assert not torch.equal(whole.noisy, source(seed=2).batch(8, 4, range(4)).noisy)


def test_targets_are_clean_and_aligned() -> None:
    batch = source(mixture_probability=1.0).batch(0, 4, range(4))
    assert (batch.noisy != batch.clean).any(dim=1).all()
    music, codes = Tones().open()
    rows, offsets = source().locate(np.arange(4))
    assert (offsets % 320 == 0).all()
    for clip, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
        expected = music.pcm[row, offset : offset + crop_samples(0.5)] / 32768
        np.testing.assert_allclose(batch.clean[clip].numpy(), expected, atol=1e-7)
        np.testing.assert_array_equal(
            batch.codes[clip].numpy(), codes.table[row, offset // 320 : offset // 320 + batch.mask.shape[1]]
        )
    assert batch.masked_frames == int(batch.mask.sum())


def test_an_epoch_visits_every_track_and_the_next_differs() -> None:
    crops = source()
    first, second = crops.locate(np.arange(len(crops))), crops.locate(np.arange(len(crops), 2 * len(crops)))
    assert sorted(first[0]) == sorted(second[0]) and set(first[0]) == set(range(10))
    assert not np.array_equal(first[0], second[0])


def test_validation_hears_no_mixture() -> None:
    batch = source("valid", corrupt=False, mixture_probability=1.0).batch(0, 4, range(4))
    assert torch.equal(batch.noisy, batch.clean)


def test_too_short_tracks_are_an_error() -> None:
    music, codes = Tones(seconds=0.4).open()
    with pytest.raises(MertError, match="as long as a crop"):
        CropSource(music, codes, params(), "train", 1)
