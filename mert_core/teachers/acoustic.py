"""The frozen acoustic teacher: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mert_core.audio.frames import FRAME_RATE, HOP_SAMPLES, seconds_to_samples
from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.rvqvae import Architecture, RvqVae

WEIGHTS_NAME = "acoustic.safetensors"
CARD_NAME = "acoustic.json"
# Before the recurrent layers an output frame sees 1,606 samples (7-tap convolution 6, then per ratio r a residual
# block of 2 and a strided convolution of r more, in units of the stride so far): 6 + 2 + 2 + 4 + 8 + 16 + 40 + ...
_CONTEXT_HOPS = 8
_PIECE_SECONDS = 1.0
_PIECES_PER_BATCH = 8


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
        step, context = seconds_to_samples(_PIECE_SECONDS), _CONTEXT_HOPS * HOP_SAMPLES
        if samples <= step + context:
            return torch.cat([self._front(part.unsqueeze(1)) for part in waveform.split(_PIECES_PER_BATCH)])
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
        return torch.cat([self._front(part.unsqueeze(1)) for part in pieces.split(_PIECES_PER_BATCH)])


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
