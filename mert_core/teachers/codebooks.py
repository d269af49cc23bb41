"""EnCodec's EMA codebook, with its k-means start and its dead-code revival made to last.

Two lines of ``encodec.quantization.core_vq.EuclideanCodebook`` (0.1.1) undo what they are for. After k-means the
running sum of vectors is set to the centroids and not to centroid × cluster size, so the first update shrinks every
entry several-fold; and a revived entry is overwritten, in the same step, by the running mean of the dead one.
Published training runs are long enough to recover from both, a few hundred steps are not.
"""

from __future__ import annotations

import torch
from encodec.quantization.core_vq import EuclideanCodebook
from torch import Tensor

from mert_core.teachers.clustering import k_means


class SteadyCodebook(EuclideanCodebook):
    """``EuclideanCodebook`` whose start and revivals survive the next update. Same buffers, same inference.

    ``threshold_ema_dead_code`` is a share of the mean occupancy of an entry (running count per batch), so that the
    batch size does not decide what counts as dead.
    """

    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor
    inited: Tensor

    @torch.no_grad()
    def init_embed_(self, data: Tensor) -> None:
        """Start from k-means over the first batch's vectors (vectors, dim)."""
        if self.inited:
            return
        centroids, sizes = k_means(data, self.codebook_size, self.kmeans_iters)
        sizes = sizes.clamp(min=1)
        self.embed.copy_(centroids)
        self.cluster_size.copy_(sizes)
        self.embed_avg.copy_(centroids * sizes[:, None])
        self.inited.fill_(1)

    @torch.no_grad()
    def expire_codes_(self, batch_samples: Tensor) -> None:
        """Put entries that hardly any vector chose lately on random vectors of this batch, with a fair count."""
        fair = batch_samples.shape[0] / self.codebook_size
        dead = self.cluster_size < self.threshold_ema_dead_code * fair
        count = int(dead.sum())
        if not count:
            return
        fresh = batch_samples[torch.randint(batch_samples.shape[0], (count,)).to(batch_samples.device)]
        self.embed[dead] = fresh
        self.cluster_size[dead] = fair
        self.embed_avg[dead] = fresh * fair
