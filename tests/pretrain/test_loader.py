"""The loader works beside the update and must not compete with it."""

from __future__ import annotations

import torch

from mert_core.pretrain.data import Batch, CropSource
from mert_core.pretrain.job import teaching_of
from mert_core.pretrain.loader import Loader
from mert_core.pretrain.place import Place
from tests.pretrain.music import Tones, crop_source, params


class Watched(CropSource):
    """Notes with how many torch threads each batch was cut."""

    def batch(self, first: int, clips: int, own: range) -> Batch:
        self.threads = [*getattr(self, "threads", []), torch.get_num_threads()]
        return super().batch(first, clips, own)


def test_crops_are_cut_on_one_thread_and_the_update_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        material = Tones().open()
        source = Watched(material.music, material.stored, teaching_of(params(), material), params(), "train", 1)
        with Loader(params(), source, Place()) as loader:
            loader.take(0, True)
            loader.take(loader.clips, False)
            assert torch.get_num_threads() == 3
        assert source.threads == [1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_update_is_the_same_ahead_and_afresh() -> None:
    source = crop_source(params(), seed=1)
    with Loader(params(), source, Place()) as loader:
        loader.take(0, True)
        ahead = loader.take(loader.clips, False)
    with Loader(params(), source, Place()) as loader:
        fresh = loader.take(loader.clips, False)
    assert ahead.masked_frames == fresh.masked_frames
    assert all(torch.equal(a.noisy, b.noisy) for a, b in zip(ahead.batches, fresh.batches, strict=True))
