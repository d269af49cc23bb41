"""EnCodec's architecture at any size: SEANet encoder, residual vector quantiser, SEANet decoder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from encodec.quantization.core_vq import EuclideanCodebook
from torch import Tensor, nn

from mert_core.audio.grid import FRAME_RATE
from mert_core.teachers.kmeans import k_means


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


_EMA_DECAY = 0.97
_K_MEANS_ITERATIONS = 20
# An entry chosen less than this share of its fair part is revived.
_DEAD_SHARE = 0.25


@dataclass(frozen=True)
class Architecture:
    """What sets the shapes. EnCodec's published 24 kHz model: 32 codebooks, 1024 entries, 32 filters, dimension 128."""

    codebooks: int
    entries: int
    filters: int
    dimension: int


class Reconstruction(NamedTuple):
    """What `RvqVae` makes of audio.

    Attributes:
        waveform: (batch, samples).
        latent: what the decoder got, (batch, dimension, frames).
        codes: int64 (batch, frames, codebooks); None if not quantized.
        commitment: mean squared distance of latents and entries, over all codebooks; 0 if not quantized.
    """

    waveform: Tensor
    latent: Tensor
    codes: Tensor | None
    commitment: Tensor


class RvqVae(nn.Module):
    """Encoder, quantiser and decoder with the module names (so the state-dict keys) of ``encodec.EncodecModel``.

    Causal, mono, stride 320 (ratios 8, 5, 4, 2 of the package's default), weight norm, no loudness normalisation:
    what EnCodec's 24 kHz model is.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        with warnings.catch_warnings():
            # The package uses torch's old weight norm; its key names are the published ones.
            warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)
            dimension, filters = architecture.dimension, architecture.filters
            self.encoder = SEANetEncoder(1, dimension, filters, norm="weight_norm", causal=True)
            self.decoder = SEANetDecoder(1, dimension, filters, norm="weight_norm", causal=True)
        self.quantizer = ResidualVectorQuantizer(
            dimension=architecture.dimension, n_q=architecture.codebooks, bins=architecture.entries
        )
        for layer in self.quantizer.vq.layers:
            layer._codebook = SteadyCodebook(
                dim=architecture.dimension,
                codebook_size=architecture.entries,
                kmeans_init=True,
                kmeans_iters=_K_MEANS_ITERATIONS,
                decay=_EMA_DECAY,
                threshold_ema_dead_code=_DEAD_SHARE,  # type: ignore[arg-type]
            )

    @torch.no_grad()
    def start_codebooks(self, latent: Tensor) -> None:
        """Set every codebook to the k-means centroids of what the ones before it leave over.

        Args:
            latent: (batch, dimension, frames), as many frames as can be had. Torch's global RNG draws the first
                centroids.
        """
        residual = latent.transpose(1, 2).reshape(-1, latent.shape[1])
        for layer in self.quantizer.vq.layers:
            codebook = layer._codebook
            assert isinstance(codebook, SteadyCodebook)
            codebook.init_embed_(residual)
            residual = residual - codebook.decode(codebook.encode(residual))

    def forward(self, waveform: Tensor, quantized: bool = True) -> Reconstruction:
        """Encode, quantise (or not), decode.

        Args:
            waveform: (batch, samples), samples a multiple of 320.
            quantized: False passes the latents on as they are.
        """
        latent = self.encoder(waveform.unsqueeze(1))
        codes, commitment = None, latent.new_zeros(())
        if quantized:
            result = self.quantizer(latent, FRAME_RATE)
            latent, codes, commitment = result.quantized, result.codes.permute(1, 2, 0), result.penalty
        decoded = self.decoder(latent).squeeze(1)[:, : waveform.shape[1]]
        return Reconstruction(decoded, latent, codes, commitment)

    @torch.no_grad()
    def quantize(self, latent: Tensor, codebooks: int) -> Tensor:
        """Return the codes of latents: (batch, dimension, frames) → int64 (batch, frames, codebooks)."""
        return self.quantizer.vq.encode(latent, n_q=codebooks).permute(1, 2, 0)
