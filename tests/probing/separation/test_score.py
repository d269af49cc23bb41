from __future__ import annotations

import importlib.util
import runpy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mert_core.probing.separation import score
from mert_core.probing.separation.model import magnitude
from mert_core.probing.separation.score import global_sdr, museval_sdr, separate


class FixedMask(nn.Module):
    """A head that knows its mask (frames, channels, bins)."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, features: Tensor) -> Tensor:
        return self.mask[None]


def _stems(channels: int) -> Tensor:
    """Tones, noise and clicks, each with its own place between the channels (3, channels, 24000)."""
    generator = torch.Generator().manual_seed(2)
    time = torch.arange(24000) / 24000
    tones = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (220, 440, 660))
    clicks = torch.zeros(24000)
    clicks[::3000] = 5
    stems = torch.stack([0.2 * tones, clicks, 0.05 * torch.randn(24000, generator=generator)])
    gains = torch.tensor([[1.0, 0.2], [0.5, 0.5], [0.1, 1.0]])[:, :channels]
    return gains[:, :, None] * stems[:, None]


@pytest.mark.parametrize("channels", [1, 2])
def test_the_filter_keeps_the_sum_and_uses_the_channels(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stems = _stems(channels)
    mixture = stems.sum(dim=0)
    # Each stem's magnitude is known, but too low, and not how it is shared between the channels.
    known = 0.6 * magnitude(stems).mean(dim=1, keepdim=True) / (magnitude(mixture[None]) + 1e-6)
    heads = [FixedMask(mask.permute(2, 0, 1)) for mask in known]
    filtered = separate(heads, [torch.zeros(1)], mixture)  # type: ignore[arg-type]
    monkeypatch.setattr(score, "WIENER_STEPS", 0)
    masked = separate(heads, [torch.zeros(1)], mixture)  # type: ignore[arg-type]
    assert filtered.shape == (3, channels, 24000)
    truth = stems.numpy()
    assert global_sdr(truth.sum(0)[None], masked.sum(0)[None]) < 15
    assert global_sdr(truth.sum(0)[None], filtered.sum(0)[None]) > 45
    assert global_sdr(truth, filtered).mean() > global_sdr(truth, masked).mean() + 2


@pytest.fixture(scope="module")
def bss_eval() -> Any:
    """museval's function by its file: the package itself refuses to be imported where there is no ffmpeg."""
    package = importlib.util.find_spec("museval")
    assert package is not None
    assert package.submodule_search_locations is not None
    return runpy.run_path(f"{package.submodule_search_locations[0]}/metrics.py")["bss_eval"]


def _pair(stems: int, channels: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(stems, channels, samples)) * generator.uniform(0.05, 1, (stems, 1, 1))
    leak = generator.uniform(0, 0.5, (stems, stems, 1, 1))
    return truth, 0.8 * truth + (leak * truth[None]).sum(axis=1) + 0.1 * generator.normal(size=truth.shape)


@pytest.mark.parametrize(("channels", "samples"), [(1, 4100), (2, 3000), (1, 700)])
def test_is_musevals(bss_eval: Any, channels: int, samples: int) -> None:
    truth, estimate = _pair(3, channels, samples, samples)
    truth[1, :, 1100:2100] = 0  # silent in one whole window
    swapped = [np.swapaxes(stems, 1, 2) for stems in (truth, estimate)]
    reference = bss_eval(*swapped, window=1000, hop=1000, filters_len=64)[0]
    ours = museval_sdr(truth, estimate, 1000)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, np.nanmedian(reference, axis=1), atol=1e-6)


def test_global_is_the_ratio_of_energies() -> None:
    truth, estimate = _pair(2, 2, 500, 0)
    for stem in range(2):
        expected = 10 * np.log10(np.sum(truth[stem] ** 2) / np.sum((truth[stem] - estimate[stem]) ** 2))
        assert global_sdr(truth, estimate)[stem] == pytest.approx(expected)
    assert global_sdr(truth, 0 * truth) == pytest.approx(0)
    assert np.isinf(global_sdr(truth, truth)).all()
    np.testing.assert_allclose(
        global_sdr(truth.astype(np.float32), estimate.astype(np.float32)), global_sdr(truth, estimate), rtol=1e-5
    )


def test_a_silent_stem_has_no_ratio() -> None:
    truth, estimate = _pair(2, 1, 500, 1)
    truth[0] = 0
    assert np.isnan(global_sdr(truth, estimate)).tolist() == [True, False]
    assert np.isnan(museval_sdr(truth, estimate, 100)).all()
