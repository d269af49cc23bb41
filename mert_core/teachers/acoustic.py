"""Codecs as frozen acoustic teachers: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from mert_core.teachers.base import Teacher
from mert_core.teachers.kinds import Codes
from mert_core.teachers.rvqvae import Architecture, RvqVae
from mert_core.teachers.seanet import Convolutions

# So long a stretch of frames runs through the recurrent layers at once: their gates take 600 kB per second of music.
_RECURRENT_FRAMES = 1500


class CodecTeacher(Teacher):
    """A frozen RVQ-VAE that labels music with the codes of its first codebooks.

    It is causal with a memory that has no end, so a frame has heard its track from the beginning.
    """

    context_frames = None
    causal = True
    tolerance = 0.0

    def __init__(self, settings: Any, architecture: Architecture, codebooks: int) -> None:
        super().__init__(settings)
        self.codebooks, self.entries = codebooks, architecture.entries
        self._take(RvqVae(architecture))

    def adopt(self, model: RvqVae) -> Self:
        """Take over a fitted model's weights."""
        with torch.random.fork_rng(devices=[]):
            own = RvqVae(model.architecture)  # a deep copy is not to be had of what has weight norm
        own.load_state_dict(model.state_dict())
        self._take(own)
        return self.freeze()

    def _take(self, model: RvqVae) -> None:
        self.model = model
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)  # the same product once instead of in every pass

    def freeze(self) -> Self:
        """Return itself without gradients, the weights laid out for speed."""
        super().freeze()
        layers = list(self.model.encoder.model)
        recurrent = next(place for place, layer in enumerate(layers) if type(layer).__name__ == "SLSTM")
        # in a tuple, so that they are no further modules under other names
        self._parts = Convolutions(layers[:recurrent]), layers[recurrent], nn.Sequential(*layers[recurrent + 1 :])
        return self

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

        The codes are those of one pass over the whole track, for any length. Everything is causal: a track padded at
        its end gets the same codes up to its own end. Several tracks share the recurrent layers' products, whose
        weights have to come from memory at every step: from about a dozen tracks on they take half the time.

        Args:
            waveform: (batch, samples) float32 at 24 kHz.

        Returns:
            int64 (batch, frames, codebooks) with ``frames = ceil(samples / 320)``.
        """
        return self.model.quantize(self.latent(waveform), self.codebooks)

    @torch.inference_mode()
    def latent(self, waveform: Tensor) -> Tensor:
        """Return the latents before quantisation: (batch, samples) → (batch, dimension, frames)."""
        convolutions, recurrent, last = self._parts
        states = convolutions(waveform).permute(2, 0, 1)
        lstm: Any = recurrent.lstm
        memory, found = None, []
        for part in states.split(_RECURRENT_FRAMES):
            out, memory = lstm(part, memory)
            found.append(out + part if recurrent.skip else out)
        return last(torch.cat(found).permute(1, 2, 0))
