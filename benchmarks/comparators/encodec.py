"""EnCodec's codes as people make them: the package's model, file by file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KILOBITS = 6.0


def encodec_24khz(state: dict[str, Tensor]) -> Any:
    """Return the package's 24 kHz model at 6 kbps with given weights (those that it downloads have the same keys)."""
    from encodec import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(state)
    model.set_target_bandwidth(KILOBITS)
    return model.eval()


@torch.no_grad()
def serial(model: Any, songs: Tensor) -> Tensor:
    """Encode songs (songs, samples) one after the other, each in one pass → int64 (songs, frames, 8)."""
    found = []
    for song in songs:
        (encoded,) = model.encode(song[None, None])
        found.append(encoded[0][0].t())
    return torch.stack(found)
