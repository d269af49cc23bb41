"""The loader works beside the update and must not compete with it; how far ahead it reads changes nothing."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.training.batch import Batch
from mert_core.training.batches import CropSource, Loader
from mert_core.training.worker import Worker
from tests.training.music import Tones, params, target_set


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


def source(kind: type[CropSource] = CropSource) -> CropSource:
    return kind(Tones().open().music, target_set(params()), params(), "train", 1)


def test_crops_are_cut_on_one_thread_and_the_update_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        watched = source(Watched)
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
    plain, late = source(), source(Late)
    steps = 14  # past the end of an epoch of 40 crops
    with Loader(plain, Worker(), 4, 2) as afresh, Loader(late, Worker(), 4, 2, read_ahead) as loader:
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
    late = source(Late)
    late.broken = 8  # type: ignore[attr-defined]
    before = threading.active_count()
    with Loader(late, Worker(), 4, read_ahead=2) as loader:
        loader.take(0, 100)
        loader.take(4, 100)
        with pytest.raises(MertError, match=r"crops 8 … 11 cannot be read \(OSError: the cable is out\)"):
            loader.take(8, 100)
    assert late.begun <= 5  # type: ignore[attr-defined]
    assert threading.active_count() == before
