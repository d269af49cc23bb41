"""From magnitudes of stems to stems: one step of expectation maximisation, by the `openunmix` package."""

from __future__ import annotations

import torch
from torch import Tensor

SCALE, EPSILON = 10.0, 1e-10
"""Open-Unmix's: what the loudest cell is scaled to, and what keeps silent ones from a division by nothing."""
WINDOW_FRAMES = 300
"""Spatial covariances are of so many frames, Open-Unmix's number."""


def filtered(magnitudes: Tensor, mixture: Tensor, iterations: int = 1) -> Tensor:
    """Share the mixture among stems.

    Each stem begins as its magnitude with the mixture's phase. A step then estimates each stem's power per frame and
    covariance of the channels, and gives it its share of the mixture; there is no residual, so the stems' sum is the
    mixture. Without steps it is only where the magnitudes' sum is.

    Args:
        magnitudes: estimates (stems, channels, frames, bins).
        mixture: complex spectrum (channels, frames, bins).
        iterations: steps; MARBLE's and Open-Unmix's 1.

    Returns:
        Complex spectra (stems, channels, frames, bins). The package computes in double precision, as it advises; one
        channel, which needs no covariance, takes the same step in closed form and the input's precision.
    """
    if len(mixture) == 1 and iterations == 1:
        return torch.cat(
            [
                _one_channel(*window)
                for window in zip(
                    magnitudes.split(WINDOW_FRAMES, dim=2), mixture.split(WINDOW_FRAMES, dim=1), strict=True
                )
            ],
            dim=2,
        )
    from openunmix.filtering import wiener

    parts = torch.view_as_real(mixture).permute(1, 2, 0, 3).double()
    asked = magnitudes.permute(2, 3, 1, 0).double()
    found = [
        wiener(asked[start : start + WINDOW_FRAMES], parts[start : start + WINDOW_FRAMES], iterations)
        for start in range(0, len(parts), WINDOW_FRAMES)
    ]
    return torch.view_as_complex(torch.cat(found).permute(4, 2, 0, 1, 3).to(mixture.real.dtype).contiguous())


def _one_channel(magnitudes: Tensor, mixture: Tensor) -> Tensor:
    """Return what `openunmix` returns for one step on one channel, where covariances are numbers; twenty times faster.

    Args:
        magnitudes: (stems, 1, frames, bins).
        mixture: (1, frames, bins).
    """
    loudest = max(1.0, float(mixture.abs().max()) / SCALE)
    power = (magnitudes / loudest).square()
    total = power.sum(dim=2, keepdim=True)
    share = power * (total / (total + EPSILON))
    return share / (share.sum(dim=0) + EPSILON**0.5) * mixture
