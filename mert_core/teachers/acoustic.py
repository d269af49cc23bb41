"""Codecs as frozen acoustic teachers: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.teachers.base import Codes, Teacher
from mert_core.teachers.rvqvae import Architecture, RvqVae

# Up to the recurrent layers a frame sees 798 samples, its own 320 and 478 before them: 6 + 1 by the first convolution,
# then at the strides s = 1, 2, 8, 40 with ratios r = 2, 4, 5, 8 another 2 s in the block and (2 r - 1) s going down.
_CONTEXT_HOPS = 2
# One piece, in hops, and how many times filters run together: activations of some megabytes, for the cache.
_PIECE_HOPS = 75
_PIECE_FILTERS = 64


class CodecTeacher(Teacher):
    """A frozen RVQ-VAE that labels music with the codes of its first codebooks.

    It is causal with a memory that has no end, so a frame has heard its track from the beginning.
    """

    context_frames = None
    causal = True
    speed = 25.0
    tolerance = 0.0

    def __init__(self, settings: Any, architecture: Architecture, codebooks: int) -> None:
        super().__init__(settings)
        self.codebooks, self.entries = codebooks, architecture.entries
        self._take(RvqVae(architecture))

    def adopt(self, model: RvqVae) -> Self:
        """Take over a fitted model's weights."""
        self._take(copy.deepcopy(model))
        return self.freeze()

    def _take(self, model: RvqVae) -> None:
        self.model = model
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)  # the same product once instead of in every pass
        layers = list(model.encoder.model)
        recurrent = next(place for place, layer in enumerate(layers) if type(layer).__name__ == "SLSTM")
        # in a tuple, so that they are no further modules under other names
        self._parts = nn.Sequential(*layers[:recurrent]), nn.Sequential(*layers[recurrent:])

    @property
    def kind(self) -> Codes:
        """Its codebooks."""
        return Codes(self.codebooks, self.entries)

    def hears(self, first: int, frames: int, track_frames: int) -> tuple[int, int]:
        """Return the track from its beginning to the crop's end."""
        return 0, first + frames

    @torch.inference_mode()
    def forward(self, waveform: Tensor) -> Tensor:
        """Return the codes of whole tracks, or of their beginnings.

        Everything is causal, so the convolutions run over short pieces that stay in the processor's cache, each with
        the samples before it that it sees; the recurrent layers run over the whole. The codes are those of one pass
        over the whole track, for any length; a track padded at its end gets the same codes up to its own end.

        Args:
            waveform: (batch, samples) float32 at 24 kHz.

        Returns:
            int64 (batch, frames, codebooks) with ``frames = ceil(samples / 320)``.
        """
        return self.model.quantize(self.latent(waveform), self.codebooks)

    @torch.inference_mode()
    def latent(self, waveform: Tensor) -> Tensor:
        """Return the latents before quantisation: (batch, samples) → (batch, dimension, frames)."""
        return self._parts[1](self._front_in_pieces(waveform))

    def _front_in_pieces(self, waveform: Tensor) -> Tensor:
        batch, samples = waveform.shape
        step, context = _PIECE_HOPS * HOP_SAMPLES, _CONTEXT_HOPS * HOP_SAMPLES
        if samples <= step + context:
            return self._batched(waveform)
        # The first piece starts where the track does (its reflected edge is part of the result); the last one may
        # be ragged. All in between are alike and run together.
        first = self._batched(waveform[:, : step + context])
        count = (samples - context) // step
        parts = [first]
        if count > 1:
            pieces = waveform[:, step:].unfold(1, step + context, step)[:, : count - 1]
            inner = self._batched(pieces.reshape(-1, step + context))[:, :, _CONTEXT_HOPS:]
            channels, hops = inner.shape[1:]
            inner = inner.view(batch, count - 1, channels, hops).permute(0, 2, 1, 3).reshape(batch, channels, -1)
            parts.append(inner)
        rest = waveform[:, count * step :]
        if rest.shape[1] > context:
            parts.append(self._batched(rest)[:, :, _CONTEXT_HOPS:])
        return torch.cat(parts, dim=2)

    def _batched(self, pieces: Tensor) -> Tensor:
        together = max(1, _PIECE_FILTERS // self.model.architecture.filters)
        return torch.cat([self._parts[0](part.unsqueeze(1)) for part in pieces.split(together)])
