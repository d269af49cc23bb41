"""The order of the crops: a permutation, computed one by one, and the track of each slot."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest

from mert_core.data.sampler import EpochCrops, Permutation, uniform


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 31, 32, 33, 1000, 65537])
def test_it_is_a_permutation(size: int) -> None:
    order = Permutation(size, 1337, 0, 3, 7)(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))
    again = Permutation(size, 1337, 0, 3, 7)
    assert [int(again(np.array([index]))[0]) for index in range(0, size, size // 7 + 1)] == [
        int(order[index]) for index in range(0, size, size // 7 + 1)
    ]


def test_other_keys_give_other_orders() -> None:
    orders = [Permutation(1000, *key)(np.arange(1000)) for key in ((1, 0), (1, 1), (2, 0), (0, 1))]
    for one in range(4):
        for other in range(one):
            assert (orders[one] == orders[other]).sum() < 10  # one on average
    assert max(np.corrcoef([*orders, np.arange(1000)])[np.triu_indices(5, 1)]) < 0.15


def test_all_orders_are_about_equally_likely() -> None:
    draws = 4800
    orders = [tuple(Permutation(4, seed)(np.arange(4)).tolist()) for seed in range(draws)]
    counts = np.array([orders.count(order) for order in permutations(range(4))])
    expected = draws / 24
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-squared with 23 degrees of freedom: 49.7 in 1 of 1000


def test_neighbours_are_scattered() -> None:
    order = Permutation(100_000, 5)(np.arange(100_000))
    cells = np.histogram2d(np.arange(100_000), order, bins=32)[0]
    assert ((cells - cells.mean()) ** 2 / cells.mean()).sum() == pytest.approx(31**2, abs=6 * np.sqrt(2 * 31**2))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015
    steps = np.diff(order)
    assert len(np.unique(steps)) > 60_000  # no pattern; a random order has about 70,000


def test_draws_are_uniform() -> None:
    drawn = uniform(np.arange(100_000), np.uint64(9))
    counts = np.histogram(drawn, bins=50, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 100  # 49 degrees of freedom
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.015


def crops(lengths: list[int], rows: np.ndarray | None = None) -> EpochCrops:
    samples = np.array(lengths) * 320
    return EpochCrops(
        np.arange(len(lengths)) if rows is None else rows, samples, 3200, order=(1, 0, 3), offset=(1, 0, 0)
    )


@pytest.mark.parametrize(
    "lengths",
    [
        [10],
        [9, 10, 9],
        [19, 20, 21, 5, 100],
        [1] * 50 + [10_000] + [1] * 50,
        [10] * 300 + [30_000],
        np.random.default_rng(0).integers(1, 200, 500).tolist(),
    ],
)
def test_every_track_comes_once_per_crop_that_it_holds(lengths: list[int]) -> None:
    sampler = crops(lengths)
    for epoch in range(2):
        rows, offsets = sampler.locate(np.arange(len(sampler)) + epoch * len(sampler))
        assert np.array_equal(np.bincount(rows, minlength=len(lengths)), np.array(lengths) // 10)
        assert (offsets % 320 == 0).all() and (offsets >= 0).all()
        assert (offsets + 3200 <= np.array(lengths)[rows] * 320).all()


def test_every_offset_of_a_track_is_reached() -> None:
    _, offsets = crops([30]).locate(np.arange(600))
    assert set(offsets.tolist()) == set(range(0, 21 * 320, 320))


def test_a_crop_is_the_same_alone_in_any_company_and_over_the_end_of_an_epoch() -> None:
    sampler = crops([25, 12, 40, 8], rows=np.array([0, 2, 3]))
    positions = np.array([11, 3, 2, 30, 3, 5, 6])
    rows, offsets = sampler.locate(positions)
    for position, row, offset in zip(positions, rows, offsets, strict=True):
        alone = crops([25, 12, 40, 8], rows=np.array([0, 2, 3])).locate(np.array([position]))
        assert (int(alone[0][0]), int(alone[1][0])) == (row, offset)
    assert set(rows.tolist()) <= {0, 2} and len(sampler) == 6


def test_no_memory_per_crop() -> None:
    samples = np.full(20_000, 24000 * 3600)  # 20,000 hours, 14 million crops
    rows = np.arange(20_000)
    tracemalloc.start()
    sampler = EpochCrops(rows, samples, 120_000, order=(1,), offset=(2,))
    sampler.locate(np.arange(10**9, 10**9 + 64))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sampler) == 20_000 * 720
    assert held < 13 * 20_000 + 10_000 and peak < 100 * 20_000
