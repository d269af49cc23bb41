"""The frozen acoustic teacher: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mert_core.audio.frames import FRAME_RATE
from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.rvqvae import Architecture, RvqVae
from mert_core.teachers.seanet import Convolutions

WEIGHTS_NAME = "acoustic.safetensors"
CARD_NAME = "acoustic.json"
# So long a stretch of frames runs through the recurrent layers at once: their gates take 600 kB per second of music.
_RECURRENT_FRAMES = 1500


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
        self._convolutions, self._recurrent = Convolutions(layers[:recurrent]), layers[recurrent]
        self._last = nn.Sequential(*layers[recurrent + 1 :])

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """Return the codes of whole tracks.

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
        states = self._convolutions(waveform).permute(2, 0, 1)
        lstm: Any = self._recurrent.lstm
        memory, found = None, []
        for part in states.split(_RECURRENT_FRAMES):
            out, memory = lstm(part, memory)
            found.append(out + part if self._recurrent.skip else out)
        return self._last(torch.cat(found).permute(1, 2, 0))


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
