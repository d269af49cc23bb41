"""Crops, masks and noise are pure functions of (seed, epoch, index), prepared beside the update without slowing it."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.training.batch import Batch
from mert_core.training.batches import CropSource, Loader, crop_samples, micro_batches
from mert_core.training.corruption import span_masks
from mert_core.training.worker import Worker
from tests.training.music import Tones, crop_source, params, target_set


def source(split: str = "train", seed: int = 1, corrupt: bool = True, **changes: object) -> CropSource:
    return crop_source(params(**changes), split, seed, corrupt=corrupt)


def test_batches_do_not_depend_on_workers_or_history() -> None:
    whole = source().batch(8, 4, range(4))
    fresh = source()
    fresh.batch(100, 4, range(4))
    halves = [fresh.batch(8, 4, range(2)), fresh.batch(8, 4, range(2, 4))]
    assert torch.equal(whole.noisy, torch.cat([half.noisy for half in halves]))
    assert torch.equal(whole.stored["tones"], torch.cat([half.stored["tones"] for half in halves]))
    assert not torch.equal(whole.noisy, source(seed=2).batch(8, 4, range(4)).noisy)


def test_targets_are_clean_and_aligned() -> None:
    batch = source(mixture_probability=1.0).batch(0, 4, range(4))
    assert (batch.noisy != batch.clean).any(dim=1).all()
    inputs = Tones().open()
    music, codes = inputs.music, inputs.stored["tones"]
    rows, offsets = source().locate(np.arange(4))
    assert (offsets % 320 == 0).all()
    for clip, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
        expected = music.pcm[row, offset : offset + crop_samples(0.5)] / 32768
        np.testing.assert_allclose(batch.clean[clip].numpy(), expected, atol=1e-7)
        np.testing.assert_array_equal(
            batch.stored["tones"][clip].numpy(), codes.table[row, offset // 320 : offset // 320 + batch.mask.shape[1]]
        )
    assert batch.masked_frames == int(batch.mask.sum())


def test_an_epoch_visits_every_track_and_the_next_differs() -> None:
    crops = source()
    first, second = crops.locate(np.arange(len(crops))), crops.locate(np.arange(len(crops), 2 * len(crops)))
    assert sorted(first[0]) == sorted(second[0]) and set(first[0]) == set(range(10))
    assert not np.array_equal(first[0], second[0])


def test_a_clips_randomness_is_its_own_and_new_in_each_epoch() -> None:
    crops = source(mixture_probability=1.0)
    own, later = (np.array([0, 1, 2, 3]) + start for start in (0, len(crops)))

    def draws(positions: np.ndarray) -> tuple[list, np.ndarray]:
        snippets = crops._snippets(positions, range(4), 4)
        masks = [span_masks([crops._generator(1, p)], 374, 0.8, 5)[0] for p in positions.tolist()]
        return snippets, np.array(masks)

    first, again, other = draws(own), draws(own), draws(later)
    assert first[0] == again[0] and np.array_equal(first[1], again[1])
    assert all(a != b for a, b in zip(first[0], other[0], strict=True))
    assert (first[1] != other[1]).any(axis=1).all()
    assert len({tuple(map(str, row)) for row in first[0]}) == 4


def test_the_mixture_adds_the_other_clips_at_full_gain() -> None:
    crops = source(mixture_probability=1.0)
    batch = crops.batch(0, 4, range(4))
    for clip, snippets in enumerate(crops._snippets(np.arange(4), range(4), 4)):
        expected = batch.clean[clip].clone()
        for s in snippets:
            added = batch.clean[s.source, s.source_start : s.source_start + s.samples]
            expected[s.start : s.start + s.samples] += added
        torch.testing.assert_close(batch.noisy[clip], expected)


def test_validation_hears_no_mixture() -> None:
    batch = source("valid", corrupt=False, mixture_probability=1.0).batch(0, 4, range(4))
    assert torch.equal(batch.noisy, batch.clean)


def test_too_short_tracks_are_an_error() -> None:
    with pytest.raises(MertError, match="as long as a crop"):
        crop_source(params(), data=Tones(seconds=0.4))


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_masks_do_not_depend_on_how_a_batch_is_shared_out(shares: int) -> None:
    crops = source(mask_trim_clips=4)
    whole = crops.batch(16, 8, range(8))
    size = 8 // shares
    parts = [crops.batch(16, 8, range(n * size, (n + 1) * size)) for n in range(shares)]
    assert np.array_equal(whole.mask.numpy(), np.concatenate([part.mask.numpy() for part in parts]))
    assert len(set(whole.mask[:4].sum(1).tolist())) == 1


@pytest.mark.parametrize(
    ("clips", "local", "world"), [(8, None, 1), (8, 4, 1), (8, 2, 2), (3584, 7, 64), (10, 3, 3), (7, 4, 2)]
)
def test_micro_batches_hold_every_clip_once_whatever_the_workers(clips: int, local: int | None, world: int) -> None:
    shares = [micro_batches(clips, local, rank, world) for rank in range(world)]
    assert sorted(clip for share in shares for own in share for clip in own) == list(range(clips))
    assert len({len(share) for share in shares}) == 1, "sharded layers need equally many passes"
    assert all(1 <= len(own) <= (local or clips) for share in shares for own in share)
    together = [sorted(clip for own in step for clip in own) for step in zip(*shares, strict=True)]
    assert all(step == list(range(step[0], step[-1] + 1)) for step in together), "neighbours are computed together"


def test_a_worker_without_a_clip_is_an_error() -> None:
    with pytest.raises(MertError, match=r"Choose a global_batch_size that is a multiple of 4"):
        micro_batches(5, 1, 0, 4)


class Watched(CropSource):
    """Notes with how many torch threads each batch was cut."""

    def batch(self, first: int, clips: int, own: range) -> Batch:
        self.threads = [*getattr(self, "threads", []), torch.get_num_threads()]
        return super().batch(first, clips, own)


class Late(CropSource):
    """Answers late, in no particular order; notes how many are asked for at a time, and what was begun."""

    most, running, begun = 0, 0, 0
    broken = -1
    _counting = threading.Lock()

    def batch(self, first: int, clips: int, own: range) -> Batch:
        with self._counting:
            self.running += 1
            self.begun += 1
            self.most = max(self.most, self.running)
        time.sleep(random.uniform(0.002, 0.02))
        if first == self.broken:
            raise OSError("the cable is out")
        try:
            return super().batch(first, clips, own)
        finally:
            with self._counting:
                self.running -= 1


def loaded(kind: type[CropSource] = CropSource) -> CropSource:
    return kind(Tones().open().music, target_set(params()), params(), "train", 1)


def test_crops_are_cut_on_one_thread_and_the_update_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        watched = loaded(Watched)
        with Loader(watched, Worker(), 4) as loader:
            loader.take(0, 1)
            loader.take(loader.clips, 0)
            assert torch.get_num_threads() == 3
        assert watched.threads == [1, 1]  # type: ignore[attr-defined]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    def tensors(batch: Batch) -> list[Tensor]:
        return [batch.noisy, batch.clean, batch.mask, *batch.stored.values()]

    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for mine, its in pairs for a, b in zip(tensors(mine), tensors(its), strict=True))


@pytest.mark.parametrize("read_ahead", [1, 5])
def test_updates_come_in_order_and_are_the_same_however_far_ahead(read_ahead: int) -> None:
    plain, late = loaded(), loaded(Late)
    steps = 14  # past the end of an epoch of 40 crops
    with Loader(plain, Worker(), 8, 4) as afresh, Loader(late, Worker(), 8, 4, read_ahead) as loader:
        clips = loader.clips
        positions = [clips * step for step in range(steps)]
        positions[9:] = [clips * (step - 4) for step in range(9, steps)]  # training was set back
        for number, position in enumerate(positions):
            left = steps - 1 - number
            update = loader.take(position, left)
            expected = afresh.take(position, 0)
            assert equal(update.batches, expected.batches) and update.masked_frames == expected.masked_frames
        assert not loader._begun  # nothing after the last one
    assert late.most <= read_ahead  # type: ignore[attr-defined]
    assert read_ahead == 1 or late.most > 1  # type: ignore[attr-defined]


def test_an_error_belongs_to_its_update_and_what_waits_is_not_run() -> None:
    late = loaded(Late)
    late.broken = 8  # type: ignore[attr-defined]
    before = threading.active_count()
    with Loader(late, Worker(), 4, read_ahead=2) as loader:
        loader.take(0, 100)
        loader.take(4, 100)
        with pytest.raises(MertError, match=r"crops 8 … 11 cannot be read \(OSError: the cable is out\)"):
            loader.take(8, 100)
    assert late.begun <= 5  # type: ignore[attr-defined]
    assert threading.active_count() == before
