"""Hidden states of one audio file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mert_core.audio.decode import check_music, decode
from mert_core.audio.errors import UnusableAudio
from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model.long_audio import CHUNK_SECONDS, MARGIN_SECONDS, song_states
from mert_core.model.mert import MertModel


def embed_file(
    audio: Path,
    model_folder: Path,
    layer: str,
    out: Path,
    chunk_seconds: float = CHUNK_SECONDS,
    margin_seconds: float = MARGIN_SECONDS,
) -> tuple[int, int, int]:
    """Write the hidden states of a whole file as float32 ``.npy`` and return their shape (states, frames, width).

    The waveform is the mono mean at 24 kHz, as in pre-training: no loudness or variance normalisation. States go to
    disk chunk by chunk: of what is held in memory only the waveform (96 kB per second) grows with the song.

    Args:
        audio: any file that `mert corpus` reads.
        model_folder: ``config.json`` and weights.
        layer: ``all``, or the number of one hidden state; 0 is the encoder's input.
        out: the file to write, atomically.
        chunk_seconds: longer music is computed in chunks, see ``song_states``.
        margin_seconds: what is thrown away of a chunk at either end.

    Raises:
        MertError: unusable audio, no model in the folder, no such layer, impossible chunks, states that are not
            finite, or ``out`` is a folder or the audio itself; nothing is written.
    """
    _check_out(out, audio)
    model = MertModel.from_pretrained(model_folder)
    chosen = _layers(layer, model.config.num_hidden_layers + 1)
    waveform = _read(audio, model)
    frames = model.config.frames(waveform.shape[-1])
    shape = len(chosen), frames, model.config.hidden_size
    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        begin = stream.tell()
        for first, states in song_states(model, waveform, chunk_seconds, margin_seconds):
            for index, number in enumerate(chosen):
                if not states[number].isfinite().all():
                    raise MertError(
                        f"{model_folder} gives NaN or infinity for {audio} (state {number}): its weights are damaged "
                        "or the training diverged. Use another checkpoint."
                    )
                stream.seek(begin + 4 * shape[2] * (index * frames + first))
                stream.write(np.ascontiguousarray(states[number].numpy(), dtype="<f4").data)
    return shape


def _check_out(out: Path, audio: Path) -> None:
    if out.is_dir():
        raise MertError(f"{out} is a folder; expected the name of a .npy file to write")
    if out.exists() and audio.exists() and out.samefile(audio):
        raise MertError(f"{out} is the music itself and would be overwritten; give another name with --out")


def _layers(layer: str, states: int) -> list[int]:
    names = [str(index) for index in range(states)]
    if layer == "all":
        return list(range(states))
    if layer not in names:
        raise MertError(f"--layer {layer}: this model has the states 0 to {states - 1}, or all")
    return [names.index(layer)]


def _read(audio: Path, model: MertModel) -> Tensor:
    try:
        decoded = decode(audio)
        check_music(decoded, min_seconds=0.0)
    except UnusableAudio as error:
        raise MertError(
            f"{audio} cannot be used: {str(error).rstrip('.')}. "
            "Give a whole wav, flac, ogg, opus or mp3 file with sound in it."
        ) from error
    waveform = torch.from_numpy(decoded.waveform)[None]
    if model.config.frames(waveform.shape[-1]) < 1:
        raise MertError(
            f"{audio} has {waveform.shape[-1]} samples at {model.config.sample_rate} Hz; one frame needs "
            f"{model.config.receptive_samples}. Give a longer file."
        )
    return waveform
