"""The frozen acoustic teacher: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mert_core.audio.frames import FRAME_RATE, HOP_SAMPLES
from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.rvqvae import Architecture, RvqVae

WEIGHTS_NAME = "acoustic.safetensors"
CARD_NAME = "acoustic.json"
# Up to the recurrent layers a frame sees 798 samples, its own 320 and 478 before them: 6 + 1 by the first convolution,
# then at the strides s = 1, 2, 8, 40 with ratios r = 2, 4, 5, 8 another 2 s in the block and (2 r - 1) s going down.
_CONTEXT_HOPS = 2
# One piece, in hops, and how many times filters run together: activations of some megabytes, for the cache.
_PIECE_HOPS = 75
_PIECE_FILTERS = 64


class AcousticTeacher(nn.Module):
    """A frozen RVQ-VAE that labels music.

    Attributes:
        codebooks: how many codes a frame gets.
        entries: how many values a code has.
        frame_rate: 75 per second.
    """

    frame_rate = FRAME_RATE

    def __init__(self, model: RvqVae, codebooks: int) -> None:
        super().__init__()
        self.model = model.eval()
        self.codebooks = codebooks
        self.entries = model.architecture.entries
        for module in self.model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)  # the same product once instead of in every pass
        self.requires_grad_(False)  # last: folding the weight norm makes new parameters
        layers = list(self.model.encoder.model)
        recurrent = next(place for place, layer in enumerate(layers) if type(layer).__name__ == "SLSTM")
        self._front, self._back = nn.Sequential(*layers[:recurrent]), nn.Sequential(*layers[recurrent:])

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """Return the codes of whole tracks.

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
        return self._back(self._front_in_pieces(waveform))

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
        return torch.cat([self._front(part.unsqueeze(1)) for part in pieces.split(together)])


def save_acoustic(folder: Path, model: RvqVae, codebooks: int, origin: str) -> None:
    """Write weights and architecture.

    Args:
        folder: receives ``acoustic.safetensors`` and ``acoustic.json``.
        model: what `load_acoustic` shall give back, frozen.
        codebooks: how many of the quantiser's codebooks label music (the first ones).
        origin: ``"trained"`` or ``"encodec_24khz"``.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_NAME) as path:
        save_file(state, path)
    card = {"architecture": asdict(model.architecture), "codebooks": codebooks, "origin": origin}
    write_json(folder / CARD_NAME, card)


def load_acoustic(folder: Path) -> AcousticTeacher:
    """Load what the stage ``teachers`` wrote.

    Raises:
        MertError: a file is missing, or weights and architecture do not fit together.
    """
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        model = RvqVae(Architecture(**card["architecture"]))
        model.load_state_dict(load_file(folder / WEIGHTS_NAME))
        return AcousticTeacher(model, int(card["codebooks"]))
    except FileNotFoundError as error:
        raise MertError(
            f"{error.filename or folder} is missing: there is no acoustic teacher here. Run `dvc repro teachers`."
        ) from error
    except (KeyError, TypeError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise MertError(
            f"{folder} does not hold an acoustic teacher ({error}). Remove it and run `dvc repro teachers`."
        ) from error
