"""The strided convolution is torch's, values and gradients, whatever the kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mert_core.model.kernels import strided_conv


def native(rows: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve rows with zeros behind them, as the last outputs here do."""
    beyond = max(0, weight.shape[-1] - stride)
    return F.conv1d(F.pad(rows.t()[None], (0, beyond)), weight, stride=stride)[0].t()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (1, 1), (5, 1), (10, 5), (4, 3), (1, 2)])
def test_values_and_gradients_are_torchs(kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(kernel)
    rows = torch.randn(30, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(6, 4, kernel, generator=generator, dtype=torch.float64).requires_grad_()
    found, expected = strided_conv(rows, weight, stride), native(rows, weight, stride)
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((found * direction).sum(), (rows, weight))
    theirs = torch.autograd.grad((expected * direction).sum(), (rows, weight))
    for gradient, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, other)


def test_autocast_reaches_it() -> None:
    rows, weight = torch.randn(12, 4), torch.randn(6, 4, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = strided_conv(rows, weight, 2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), native(rows, weight, 2), atol=0.1, rtol=0.05)
    found.sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32
