"""k-means: the algorithm against scikit-learn's, and what its teachers refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from mert_core.errors import MertError
from mert_core.teachers.base import Sources
from mert_core.teachers.framewise import usage
from mert_core.teachers.kmeans import lloyd, nearest, spread_start
from mert_core.teachers.registry import new_teacher
from tests.teachers.conftest import SMALL


def vectors(count: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 3.0 * torch.randn(12, 6, generator=generator)
    return centres[torch.arange(count) % 12] + torch.randn(count, 6, generator=generator)


def test_rounds_are_those_of_scikit_learn() -> None:
    music = vectors().double()
    start = spread_start(music.float(), 16, torch.Generator().manual_seed(1)).double()
    found, sizes = lloyd(music, start, range(5), torch.Generator())
    theirs = KMeans(16, init=start.numpy(), n_init=1, max_iter=5, tol=0.0, algorithm="lloyd").fit(music.numpy())
    assert np.allclose(found.numpy(), theirs.cluster_centers_, atol=1e-8)
    assert int(sizes.sum()) == len(music)


def test_nearest_is_the_nearest_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    music, entries = vectors(), vectors(50)
    expected = torch.cdist(music, entries).argmin(1)
    assert torch.equal(nearest(music, entries), expected)
    monkeypatch.setattr("mert_core.teachers.kmeans._DISTANCES", 50 * 7)
    assert torch.equal(nearest(music, entries), expected)


def test_the_start_spreads_over_separate_groups() -> None:
    centres = 100.0 * torch.eye(8)
    music = centres.repeat(30, 1) + torch.randn(240, 8, generator=torch.Generator().manual_seed(0))
    start = spread_start(music, 8, torch.Generator().manual_seed(0))
    assert sorted(nearest(start, centres).tolist()) == list(range(8))


def test_an_empty_cluster_is_revived() -> None:
    music = vectors()
    start = torch.cat([music[:3], torch.full((1, 6), 1e4)])
    _, sizes = lloyd(music, start, range(3), torch.Generator().manual_seed(0))
    assert int(sizes.min()) > 0


def test_too_little_variety_is_an_error(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = new_teacher("mfcc-kmeans", SMALL["mfcc-kmeans"])
    features = teacher.features
    monkeypatch.setattr(teacher, "features", lambda waveform: features(torch.zeros_like(waveform)))
    with pytest.raises(MertError, match=r"mfcc-kmeans\.clusters is 32, but there are only 1 different frames among"):
        teacher.fit(sources)


def test_too_short_tracks_are_an_error(sources: Sources) -> None:
    teacher = new_teacher("student-kmeans", {**SMALL["student-kmeans"], "block_seconds": 30.0})
    with pytest.raises(MertError, match=r"teachers\.student-kmeans.*no track of the train split .* holds a crop of 30"):
        teacher.fit(sources)


def test_usage_counts_what_is_used() -> None:
    codes = torch.tensor([[0, 1], [1, 1], [2, 1], [3, 1]])
    assert usage(codes, 4) == {"usage_least": 0.25, "usage_mean": 0.625, "entropy_bits": 0.0}
