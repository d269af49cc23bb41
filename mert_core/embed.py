"""Hidden states of one audio file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mert_core.audio.decode import decode
from mert_core.audio.unusable import UnusableAudio
from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model import MertModel


def embed_file(audio: Path, model_folder: Path, layer: str, out: Path) -> tuple[int, int, int]:
    """Write the hidden states of a whole file as float32 ``.npy`` and return their shape (states, frames, width).

    The waveform is the mono mean at 24 kHz, as in pre-training: no loudness or variance normalisation.

    Args:
        audio: any file that `mert corpus` reads.
        model_folder: ``config.json`` and weights.
        layer: ``all``, or the number of one hidden state; 0 is the encoder's input.
        out: the file to write, atomically.

    Raises:
        MertError: unusable audio, no model in the folder, or no such layer.
    """
    try:
        waveform = torch.from_numpy(decode(audio).waveform)[None]
    except UnusableAudio as error:
        raise MertError(
            f"{audio} cannot be used: {error}. Give a wav, flac, ogg, opus or mp3 file with sound in it."
        ) from error
    model = MertModel.from_pretrained(model_folder).eval()
    with torch.inference_mode():
        states = torch.cat(model(waveform).hidden_states).numpy()
    if layer != "all":
        names = [str(index) for index in range(len(states))]
        if layer not in names:
            raise MertError(f"--layer {layer}: this model has the states 0 to {len(states) - 1}, or all")
        states = states[[names.index(layer)]]
    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(states, dtype=np.float32))
    return states.shape
