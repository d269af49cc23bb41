"""Data-dependent start of weight-normalised convolutions (Salimans and Kingma 2016, arXiv 1602.07868, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mert_core.teachers.rvqvae import RvqVae

_LEAST_DEVIATION = 1e-4


@torch.no_grad()
def condition(model: RvqVae, waveform: Tensor) -> None:
    """Scale and shift every convolution so that its outputs on this batch have mean 0 and deviation 1.

    With torch's own start the encoder's latents of music vary by a few hundredths around a constant, and hundreds of
    steps pass before they tell one sound from another; then codebooks collapse. The decoder's last convolution gets
    the deviation of the waveform.

    Args:
        model: freshly made.
        waveform: (batch, samples) of music.
    """
    handles = [
        module.register_forward_hook(_normalise)
        for module in model.modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
    ]
    model(waveform, quantised=False)
    for handle in handles:
        handle.remove()
    last = [module for module in model.decoder.modules() if isinstance(module, nn.Conv1d)][-1]
    assert isinstance(last.weight_g, Tensor)
    last.weight_g.mul_(waveform.std())


def _normalise(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Change a convolution's gain and bias, and return what it would have put out with them."""
    mean = output.mean(dim=(0, 2))
    # A transposed convolution's gains belong to its inputs, so all its outputs share one factor.
    shared = isinstance(module, nn.ConvTranspose1d)
    deviation = (output - mean[:, None]).std() if shared else output.std(dim=(0, 2))
    deviation = deviation.clamp(min=_LEAST_DEVIATION)
    gain, bias = module.weight_g, module.bias
    assert isinstance(gain, Tensor) and isinstance(bias, Tensor)
    gain.div_(deviation if shared else deviation[:, None, None])
    bias.copy_((bias - mean) / deviation)
    return (output - mean[:, None]) / (deviation if shared else deviation[:, None])
