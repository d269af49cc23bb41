"""Crops, masks and noise are pure functions of (seed, epoch, index), prepared beside the update without slowing it."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.training.batches import CropSource, Loader, crop_samples, micro_batches
from mert_core.training.corruption import span_masks
from mert_core.training.targets import Batch
from mert_core.training.worker import Worker
from tests.training.music import Tones, crop_source, params, target_set


def source(split: str = "train", seed: int = 1, corrupt: bool = True, **changes: object) -> CropSource:
    return crop_source(params(**changes), split, seed, corrupt=corrupt)


def tensors(batches: list[Batch]) -> list[Tensor]:
    columns = zip(*([b.noisy, b.clean, b.mask, b.stored["tones"]] for b in batches), strict=True)
    return [torch.cat(column) for column in columns]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_batches_depend_on_the_seed_but_not_on_workers_or_history(shares: int) -> None:
    fresh, size = source(mask_trim_clips=4), 8 // shares
    fresh.batch(100, 4, range(4))
    parts = [fresh.batch(16, 8, range(n * size, (n + 1) * size)) for n in range(shares)]
    whole = source(mask_trim_clips=4).batch(16, 8, range(8))
    assert equal([whole], parts)
    assert len(set(whole.mask[:4].sum(1).tolist())) == 1
    assert not torch.equal(whole.noisy, source(seed=2).batch(16, 8, range(8)).noisy)


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

    def draws(start: int) -> tuple[list, np.ndarray]:
        snippets = [crops._snippets(start + clip, clip, 4) for clip in range(4)]
        return snippets, np.array([span_masks([crops._generator(1, start + n)], 374, 0.8, 5)[0] for n in range(4)])

    first, again, other = draws(0), draws(0), draws(len(crops))
    assert first[0] == again[0] and np.array_equal(first[1], again[1])
    assert all(a != b for a, b in zip(first[0], other[0], strict=True))
    assert (first[1] != other[1]).any(axis=1).all()
    assert len({tuple(map(str, row)) for row in first[0]}) == 4


def test_the_mixture_adds_the_other_clips_at_full_gain_but_not_in_validation() -> None:
    crops = source(mixture_probability=1.0)
    batch = crops.batch(0, 4, range(4))
    for clip in range(4):
        expected = batch.clean[clip].clone()
        for s in crops._snippets(clip, clip, 4):
            added = batch.clean[s.source, s.source_start : s.source_start + s.samples]
            expected[s.start : s.start + s.samples] += added
        torch.testing.assert_close(batch.noisy[clip], expected)
    valid = source("valid", corrupt=False, mixture_probability=1.0).batch(0, 4, range(4))
    assert torch.equal(valid.noisy, valid.clean)


def test_too_short_tracks_are_an_error() -> None:
    with pytest.raises(MertError, match="as long as a crop"):
        crop_source(params(), data=Tones(seconds=0.4))


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


class Late(CropSource):
    """Answers late, in no particular order; notes how many are asked for at a time, what was begun, and threads."""

    most, running, begun = 0, 0, 0
    broken = -1
    _counting = threading.Lock()

    def batch(self, first: int, clips: int, own: range) -> Batch:
        with self._counting:
            self.threads = {*getattr(self, "threads", ()), torch.get_num_threads()}
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


def loaded(kind: type[CropSource]) -> Any:
    return kind(Tones().open().music, target_set(params()), params(), "train", 1)


@pytest.mark.parametrize("read_ahead", [1, 5])
def test_updates_come_in_order_and_are_the_same_however_far_ahead(read_ahead: int) -> None:
    plain, late = loaded(CropSource), loaded(Late)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Loader(late, Worker(), 8, 4, read_ahead) as loader:
            # 14 updates run past the end of an epoch of 40 crops; training is set back after the ninth
            begun, again = loader.updates(0, 14), loader.updates(40, 9)
            updates = [next(begun) for _ in range(9)]
            del begun
            updates += again
            assert torch.get_num_threads() == 3, "the update keeps its own"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert late.threads == {1}
    for first, batches in zip((*range(0, 72, 8), *range(40, 112, 8)), updates, strict=True):
        assert equal(batches, [plain.batch(first, 8, range(start, start + 4)) for start in (0, 4)])
    assert late.begun <= 2 * (18 + read_ahead), "nothing after the last one"
    assert late.most <= read_ahead
    assert read_ahead == 1 or late.most > 1


def test_an_error_belongs_to_its_update_and_what_waits_is_not_run() -> None:
    late = loaded(Late)
    late.broken = 8
    before = threading.active_count()
    with Loader(late, Worker(), 4, read_ahead=2) as loader:
        updates = loader.updates(0, 100)
        next(updates)
        next(updates)
        with pytest.raises(MertError, match=r"crops 8 … 11 cannot be read \(OSError: the cable is out\)"):
            next(updates)
    assert late.begun <= 5
    assert threading.active_count() == before
