"""The position convolution on a CPU is torch's grouped one, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mert_core.model.kernels import spectral_conv

SHAPES = [(1, 374, 64, 4, 128), (3, 74, 32, 16, 32), (1, 5, 48, 4, 16), (2, 33, 48, 4, 7), (2, 161, 8, 1, 80)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    batch, frames, width, groups, kernel = shape
    torch.manual_seed(frames)
    given = torch.randn(batch, frames, width), torch.randn(width, width // groups, kernel) / 8, torch.rand(kernel) + 0.5
    ours = [tensor.requires_grad_() for tensor in given]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    found = spectral_conv(*ours, groups)
    states, weight, gain = exact
    full = F.conv1d(states.transpose(1, 2), weight * gain, padding=kernel // 2, groups=groups)
    expected = full[..., :frames].transpose(1, 2)
    direction = torch.randn(found.shape)
    found.backward(direction)
    expected.backward(direction.double())
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)
    for mine, other in zip(ours, exact, strict=True):
        assert mine.grad is not None and other.grad is not None
        assert (mine.grad - other.grad).norm() < 2e-6 * other.grad.norm()
