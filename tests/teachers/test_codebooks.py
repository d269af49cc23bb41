"""Start and revival of codebook entries."""

from __future__ import annotations

import pytest
import torch

from mert_core.teachers.codec.model import SteadyCodebook
from mert_core.teachers.kmeans import k_means, nearest


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def codebook(entries: int = 4) -> SteadyCodebook:
    book = SteadyCodebook(dim=2, codebook_size=entries, kmeans_init=True, kmeans_iters=10, decay=0.9)
    book.threshold_ema_dead_code = 0.1
    return book


def clusters() -> torch.Tensor:
    centres = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    return (centres[:, None] + 0.1 * torch.randn(4, 25, 2)).reshape(-1, 2)


def test_k_means_finds_separated_clusters() -> None:
    vectors = clusters()
    centroids, sizes = min((k_means(vectors, 4, 10) for _ in range(5)), key=lambda found: float(found[1].var()))
    assert sizes.tolist() == [25, 25, 25, 25]
    assert torch.equal(nearest(vectors, centroids).bincount(), torch.tensor([25, 25, 25, 25]))


def test_the_first_update_keeps_the_k_means_centroids() -> None:
    book, vectors = codebook(), clusters()
    book.train()
    book.init_embed_(vectors)
    before = book.embed.clone()
    book(vectors)
    assert (book.embed - before).norm() < 0.2 * before.norm()


def test_a_dead_entry_is_put_on_music_and_stays_there() -> None:
    book, vectors = codebook(), clusters()
    book.init_embed_(vectors)
    book.embed[0] = 1e4
    book.embed_avg[0] = 0.0
    book.cluster_size[0] = 0.0
    book.train()
    book(vectors)
    assert book.embed[0].norm() < 15
    book(vectors)
    assert book.embed[0].norm() < 15
    assert float(book.cluster_size[0]) > 0
