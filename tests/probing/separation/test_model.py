from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_core.probing.separation.model import BINS, frames_of, magnitude, spectrum, waveform_of
from mert_core.probing.separation.score import filtered, global_sdr


@pytest.mark.parametrize("samples", [1500, 6400, 7001])
def test_the_inverse_is_exact(samples: int) -> None:
    waveform = torch.randn(2, 3, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = spectrum(waveform)
    assert found.shape == (2, 3, frames_of(samples), BINS)
    torch.testing.assert_close(waveform_of(found, samples), waveform, atol=1e-10, rtol=0)
    torch.testing.assert_close(magnitude(found), found.abs())


def test_frames_are_those_of_a_plain_transform() -> None:
    waveform = torch.randn(6400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    padded = np.pad(waveform.numpy(), 1024)
    for frame in (0, 7, 20):
        expected = np.fft.rfft(padded[320 * frame : 320 * frame + 2048] * window)
        np.testing.assert_allclose(spectrum(waveform)[frame].numpy(), expected, atol=1e-9)


def _stems(channels: int) -> torch.Tensor:
    """Tones, noise and clicks, each with its own place between the channels."""
    generator = torch.Generator().manual_seed(2)
    time = torch.arange(24000) / 24000
    tones = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (220, 440, 660))
    clicks = torch.zeros(24000)
    clicks[::3000] = 5
    stems = torch.stack([0.2 * tones, clicks, 0.05 * torch.randn(24000, generator=generator)])
    places = torch.tensor([[1.0, 0.2], [0.5, 0.5], [0.1, 1.0]])[:, :channels]
    return places[:, :, None] * stems[:, None]


@pytest.mark.parametrize("channels", [1, 2])
def test_wiener_keeps_the_sum_and_uses_the_channels(channels: int) -> None:
    stems = _stems(channels)
    mixture = spectrum(stems.sum(dim=0))
    # each stem's magnitude is known, but too low, and not what of it is in which channel
    asked = 0.6 * magnitude(spectrum(stems)).mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    plain, once = (filtered(asked, mixture, iterations) for iterations in (0, 1))
    assert once.shape == (3, channels, 76, BINS)
    truth = stems.numpy()
    kept = [global_sdr(truth.sum(0)[None], waveform_of(found, 24000).sum(0)[None].numpy()) for found in (plain, once)]
    assert kept[0] < 15
    assert kept[1] > 45
    before, after = (global_sdr(truth, waveform_of(found, 24000).numpy()) for found in (plain, once))
    assert after.mean() > before.mean() + 2


def test_one_channel_is_what_the_package_gives() -> None:
    from openunmix.filtering import wiener

    mixture = spectrum(_stems(1).sum(dim=0).double())
    asked = 0.6 * magnitude(spectrum(_stems(1).double()))
    reference = wiener(asked.permute(2, 3, 1, 0), torch.view_as_real(mixture).permute(1, 2, 0, 3), 1)
    expected = torch.view_as_complex(reference.permute(4, 2, 0, 1, 3).contiguous())
    torch.testing.assert_close(filtered(asked, mixture), expected, atol=1e-9, rtol=1e-9)
