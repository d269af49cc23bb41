"""Hidden states of a song of any length, chunk by chunk, in memory that does not grow with it.

The convolutions look 400 samples far, and their only long-range part, the first norm's statistics, is taken over the
whole song beforehand; so they are exact. What a chunk loses is attention to the music beyond it. Each chunk therefore
overlaps its neighbours by a margin that is thrown away, and a song that fits into one chunk is computed whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mert_core.errors import MertError

if TYPE_CHECKING:
    from mert_core.model.frontend import Moments
    from mert_core.model.mert import MertModel

CHUNK_SECONDS = 30.0
MARGIN_SECONDS = 5.0
# Frames whose convolutions are computed at a time: the first layer has 64 values per frame and channel.
_FRONT_FRAMES = 500
_CQT_CONTEXT_FRAMES = 80  # its longest filter reaches 25,230 samples to either side


def song_states(
    model: MertModel, waveform: Tensor, chunk_seconds: float = CHUNK_SECONDS, margin_seconds: float = MARGIN_SECONDS
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield a song's hidden states from its beginning to its end.

    Args:
        model: in evaluation mode.
        waveform: (1, samples), 24 kHz.
        chunk_seconds: music that attention sees at a time; the longer, the closer to the whole song, and the more
            memory.
        margin_seconds: music that is thrown away at either end of a chunk, where it has a neighbour.

    Yields:
        The number of a piece's first frame, and its states 0 … layers, each (frames, width).

    Raises:
        MertError: the song is shorter than one frame, or the margins leave nothing of a chunk.
    """
    config = model.config
    frames, frame_rate = config.frames(waveform.shape[-1]), config.sample_rate / config.hop_samples
    chunk, margin = round(chunk_seconds * frame_rate), round(margin_seconds * frame_rate)
    if margin < 0 or chunk <= 2 * margin:
        raise MertError(
            f"chunks of {chunk_seconds:g} s with margins of {margin_seconds:g} s leave nothing; the margin must be at "
            "least 0 and less than half a chunk"
        )
    if frames <= chunk:
        with torch.inference_mode():
            output = model(waveform)
        yield 0, tuple(state[0] for state in output.hidden_states)
        return
    with torch.inference_mode():
        moments = model.feature_extractor.moments(waveform)
    for first, last in _kept(frames, chunk, margin):
        # Chunks at the ends are as long as the others: they have their margin on one side only.
        start = min(max(0, first - margin), frames - chunk)
        with torch.inference_mode():
            features = _features(model, waveform, start, start + chunk, moments)
            states = model.encoder(model.feature_projection(features), None)
        yield first, tuple(state[0, first - start : last - start] for state in states)


def _kept(frames: int, chunk: int, margin: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of frames that chunks answer for: the first and the last keep the margin at the song's end."""
    first, last = 0, chunk - margin
    while last < frames - margin:
        yield first, last
        first, last = last, last + chunk - 2 * margin
    yield first, frames


def _features(model: MertModel, waveform: Tensor, first: int, last: int, moments: Moments) -> Tensor:
    """Return what enters the feature projection for a range of the song's frames, (1, frames, channels)."""
    hop, receptive = model.config.hop_samples, model.config.receptive_samples
    parts = []
    for begin in range(first, last, _FRONT_FRAMES):
        end = min(last, begin + _FRONT_FRAMES)
        piece = waveform[:, begin * hop : (end - 1) * hop + receptive]
        parts.append(model.feature_extractor(piece, moments=moments))
    features = torch.cat(parts, dim=1)
    if model.cqt is None:
        return features
    context = min(first, _CQT_CONTEXT_FRAMES)
    around = waveform[:, (first - context) * hop : (last + _CQT_CONTEXT_FRAMES) * hop]
    spectrum = model.cqt(around.float())[:, context : context + last - first]
    return torch.cat([features, spectrum.to(features.dtype)], dim=-1)
