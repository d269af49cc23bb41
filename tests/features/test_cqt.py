"""The musical teacher against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.features.cqt import ConstantQ


@pytest.fixture(scope="module")
def cqt() -> ConstantQ:
    return ConstantQ()


def sine(hertz: float, amplitude: float = 1.0, seconds: float = 5.0) -> Tensor:
    time = torch.arange(int(seconds * SAMPLE_RATE), dtype=torch.float64) / SAMPLE_RATE
    return (amplitude * torch.sin(2 * math.pi * hertz * time)).float().unsqueeze(0)


@pytest.mark.parametrize(
    ("hertz", "amplitude", "peak_bin", "value"),
    [(440.0, 1.0, 180, 30.62), (440.0, 0.1, 180, 3.062), (65.4, 1.0, 48, 79.42)],
)
def test_parity_values(cqt: ConstantQ, hertz: float, amplitude: float, peak_bin: int, value: float) -> None:
    middle = cqt(sine(hertz, amplitude))[0, 188]
    assert int(middle.argmax()) == peak_bin
    assert middle[peak_bin].item() == pytest.approx(value, rel=3e-4)


def test_agrees_with_nnaudio(cqt: ConstantQ) -> None:
    nnaudio = pytest.importorskip("nnAudio.features.cqt").CQT1992v2(
        sr=SAMPLE_RATE,
        hop_length=HOP_SAMPLES,
        fmin=32.7,
        n_bins=336,
        bins_per_octave=48,
        pad_mode="constant",
        verbose=False,
    )
    noise = torch.randn(1, 24_123, generator=torch.Generator().manual_seed(0))
    for waveform in (noise, noise.cumsum(1) * 0.01, noise[:, :321]):
        expected = nnaudio(waveform).transpose(1, 2)
        found = cqt(waveform)
        assert found.shape == expected.shape
        difference = (found - expected).reshape(-1, 7, 48).norm(dim=(0, 2))
        assert torch.all(difference <= 2e-3 * expected.reshape(-1, 7, 48).norm(dim=(0, 2)))


@pytest.mark.parametrize(("samples", "frames"), [(24_000, 76), (120_000, 376), (319, 1), (320, 2)])
def test_frames(cqt: ConstantQ, samples: int, frames: int) -> None:
    assert cqt(torch.zeros(2, samples)).shape == (2, frames, 336)


def test_pieces_of_long_music_join_without_a_seam(cqt: ConstantQ, monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = torch.randn(2, 20 * SAMPLE_RATE + 7, generator=torch.Generator().manual_seed(2))
    found = cqt(waveforms)
    monkeypatch.setattr("mert_core.features.cqt._PIECE_HOPS", 10_000)
    whole = cqt(waveforms)
    assert found.shape == whole.shape == (2, 1501, 336)
    error = (found - whole).norm(dim=(0, 2)) / whole.norm(dim=(0, 2))
    assert 0 < error.max() < 1e-3  # in every frame; above 0, so that there were pieces


def test_batch_rows_do_not_touch_each_other(cqt: ConstantQ) -> None:
    waveforms = torch.randn(3, 12_000, generator=torch.Generator().manual_seed(1))
    waveforms[1] *= 100
    alone = torch.cat([cqt(row) for row in waveforms])
    torch.testing.assert_close(cqt(waveforms), alone, rtol=1e-4, atol=1e-4)


def test_is_exact_also_under_autocast_and_has_no_state(cqt: ConstantQ) -> None:
    waveform = sine(440.0, seconds=1.0).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = cqt(waveform)
    assert mixed.dtype == torch.float32 and not mixed.requires_grad
    assert torch.equal(mixed, cqt(waveform))
    assert not cqt.state_dict()
    assert not list(cqt.parameters())
