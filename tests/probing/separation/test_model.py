from __future__ import annotations

import numpy as np
import torch
from openunmix.model import OpenUnmix

from mert_core.probing.separation.model import BINS, SeparationHead, frame_count, magnitude


def test_frames_are_those_of_a_plain_transform() -> None:
    waveform = torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(1))
    magnitudes = magnitude(waveform)
    assert magnitudes.shape == (1, 1, BINS, frame_count(6400))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    padded = np.pad(waveform[0, 0].double().numpy(), 1024, mode="reflect")
    for frame in (0, 7, 20):
        expected = np.abs(np.fft.rfft(padded[320 * frame : 320 * frame + 2048] * window))
        np.testing.assert_allclose(magnitudes[0, 0, :, frame].numpy(), expected, atol=1e-3)


def test_a_head_that_reads_the_mixture_is_open_unmix() -> None:
    torch.manual_seed(0)
    reference = OpenUnmix(nb_bins=BINS, nb_channels=1, hidden_size=8, nb_layers=2).eval()
    head = SeparationHead(inputs=1, width=BINS, hidden=8, layers=2, channels=1).eval()
    weights = {name: weight for name, weight in reference.state_dict().items() if not name.startswith("input_")}
    for name in [name for name in weights if name.startswith("lstm.")]:
        layer = "1" if "_l1" in name else "0"
        weights[name.replace("lstm.", f"lstm.{layer}.").replace("_l1", "_l0")] = weights.pop(name)
    head.load_state_dict(weights | {"state_weights": torch.zeros(1)})

    mixture = torch.rand(3, 1, BINS, 11)
    features = mixture.permute(1, 0, 3, 2)
    expected = reference(mixture)
    masks = head(features)
    assert masks.shape == (3, 11, 1, BINS)
    torch.testing.assert_close(masks.permute(0, 2, 3, 1) * mixture, expected)
    torch.testing.assert_close(head(features, every_frames=4), masks[:, ::4])
