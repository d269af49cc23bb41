"""k-means (Lloyd 1982) and its starts, one copy for label teachers and for the codebooks of residual quantisers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mert_core.errors import MertError

# Distances that are computed at a time, few enough for the cache.
_DISTANCES = 1 << 18
# Vectors per cluster among which k-means++ looks for its start.
_START_VECTORS = 50


def nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """Return the index of the nearest entry (Euclidean) for each row: (vectors, dim), (entries, dim) → (vectors,)."""
    lengths, transposed = entries.pow(2).sum(1), entries.t()
    pieces = vectors.split(max(1, _DISTANCES // len(entries)))
    # min tells where as well, several times faster than argmin
    return torch.cat([torch.addmm(lengths, piece, transposed, alpha=-2.0).min(dim=1).indices for piece in pieces])


def lloyd(
    vectors: Tensor, centroids: Tensor, rounds: Iterable[int], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return the centroids after rounds of "nearest centroid, then mean", and the sizes that led to the last ones.

    A cluster that runs empty is put on a vector drawn anew.

    Args:
        vectors: (vectors, dim).
        centroids: (clusters, dim) to begin with.
        rounds: one round per item; a progress bar may stand around a range.
        generator: draws the revivals; None is torch's own.

    Returns:
        (clusters, dim) and (clusters,).
    """
    count, clusters = len(vectors), len(centroids)
    sizes = vectors.new_zeros(clusters)
    for _ in rounds:
        members = nearest(vectors, centroids)
        sizes = torch.bincount(members, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, members, vectors)
        fresh = vectors[torch.randint(count, (clusters,), generator=generator).to(vectors.device)]
        centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], fresh)
    return centroids, sizes


def k_means(
    vectors: Tensor, clusters: int, iterations: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return centroids (clusters, dim) and their sizes (clusters,), starting from vectors drawn at random.

    Args:
        vectors: (vectors, dim); fewer than clusters are drawn more than once.
        clusters: how many.
        iterations: rounds of `lloyd`.
        generator: of all draws; None is torch's own.
    """
    count = len(vectors)
    if count >= clusters:
        picked = torch.randperm(count, generator=generator)[:clusters]
    else:
        picked = torch.randint(count, (clusters,), generator=generator)
    return lloyd(vectors, vectors[picked.to(vectors.device)].clone(), range(iterations), generator)


def spread_start(vectors: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return vectors far apart to start k-means from (k-means++, Arthur and Vassilvitskii 2007).

    Each is drawn with a probability in proportion to the squared distance from the nearest one before it, among the
    first fifty vectors per cluster.

    Args:
        vectors: (vectors, dim), in no order.
        clusters: how many to return.
        generator: draws them.

    Returns:
        (clusters, dim).

    Raises:
        MertError: there are fewer different vectors than clusters.
    """
    vectors = vectors[: _START_VECTORS * clusters]
    picked = torch.randint(len(vectors), (1,), generator=generator)
    lengths, found, least = vectors.pow(2).sum(1), [picked], torch.full((len(vectors),), torch.inf)
    for number in range(1, clusters):
        last = vectors[picked[0]]
        # Rounding leaves a vector's distance from itself slightly above 0.
        apart = lengths + last.pow(2).sum() - 2.0 * (vectors @ last)
        least = torch.minimum(least, torch.where(apart > 1e-5 * lengths.mean(), apart, 0.0))
        if not float(least.sum()):
            raise MertError(f"{number} different frames among the {len(vectors)} drawn")
        picked = torch.multinomial(least, 1, generator=generator)
        found.append(picked)
    return vectors[torch.cat(found)]
