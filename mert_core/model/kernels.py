"""What a processor computes in another form than torch's: strided and position convolution, and dropout.

``own_kernels`` is the one switch: on a GPU, and within compiled code, torch's own are used.

Strided convolution over time becomes matrix products on views, and no window is ever copied. With rows of time and
columns of channels, a stride of s makes s neighbouring rows one row of a matrix (rows / s, s · channels), and the taps
of a kernel fall into blocks of s: block j multiplies that matrix from its row j on. So a kernel of 3 and a stride of 2
are two products, of 2 taps and of 1, and so is each of their gradients.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def own_kernels(values: Tensor) -> bool:
    """Return whether the forms of this file are used for a tensor: on a CPU, outside of compiled code."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def _blocks(taps: Tensor, stride: int, channels: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the number and the rows of each block of ``stride`` taps; the last may have fewer."""
    return enumerate(taps.split(stride * channels))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    torch.addmm(total, left, right, out=total)


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, taps: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(rows, taps)
        ctx.stride, channels = stride, rows.shape[1]
        wide = rows.view(-1, stride * channels)
        out = wide.new_empty(len(wide), taps.shape[1])
        for number, block in _blocks(taps, stride, channels):
            if number == 0:
                torch.mm(wide[:, : len(block)], block, out=out)
            else:
                _add_product(out[:-number], wide[number:, : len(block)], block)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, taps = ctx.saved_tensors
        out, stride, channels = gradients[0].contiguous(), ctx.stride, rows.shape[1]
        d_rows = d_taps = None
        if ctx.needs_input_grad[0]:
            d_rows = torch.empty_like(rows)
            wide = d_rows.view(-1, stride * channels)
            for number, block in _blocks(taps, stride, channels):
                if number == 0:
                    torch.mm(out, block.t(), out=wide[:, : len(block)])
                    wide[:, len(block) :] = 0
                else:
                    _add_product(wide[number:, : len(block)], out[:-number], block.t())
        if ctx.needs_input_grad[1]:
            d_taps = torch.empty_like(taps)
            wide = rows.view(-1, stride * channels)
            for number, block in _blocks(d_taps, stride, channels):
                first, last = wide[number:, : len(block)], out[: len(out) - number]
                torch.mm(first.t(), last, out=block)
        return d_rows, d_taps, None


def strided_conv(rows: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve along time, without bias, in autocast's type where that is on.

    Several clips may lie behind each other, each of a multiple of ``stride`` rows. Then the last outputs of a clip,
    those whose kernel reaches beyond it, mix it with the next one and are to be thrown away.

    Args:
        rows: (time, channels), contiguous; time is a multiple of ``stride``.
        weight: (outputs, channels, kernel), as ``nn.Conv1d`` has it.
        stride: of the convolution.

    Returns:
        (time / stride, outputs).
    """
    if not own_kernels(rows):
        beyond = F.pad(rows.t()[None], (0, max(0, weight.shape[-1] - stride)))
        return F.conv1d(beyond, weight, stride=stride)[0].t()
    device = rows.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        wanted = torch.get_autocast_dtype(device)
        rows, weight = rows.to(wanted), weight.to(wanted)
    return _StridedConv.apply(rows, weight.permute(2, 1, 0).flatten(0, 1), stride)


def keep_mask(shape: torch.Size, probability: float) -> Tensor:
    """Return bool (shape), false with a probability that is rounded to 2⁻¹⁶, from torch's global generator.

    Each 64-bit draw serves four values.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= round(probability * 2**16) - 2**15).view(shape)


def dropout(values: Tensor, probability: float, training: bool) -> Tensor:
    """Set values to zero with a probability and scale up the others, in training; as ``F.dropout``."""
    if not training or probability == 0.0:
        return values
    if not own_kernels(values):
        return F.dropout(values, probability)
    return torch.where(keep_mask(values.shape, probability), values * (1 / (1 - probability)), 0.0)


_LEAST_OUTPUTS = 80
"""Frames that a block gives at least: with fewer the matrices become too small."""


@functools.cache
def _bases(kernel: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the DFTs of a block: of its frames, of the taps, and the way back, as real matrices, float32.

    A block has kernel + outputs frames, an even number, and gives the outputs that see nothing of its ends. Frequencies
    above the Nyquist frequency are conjugates of those below and left out.

    Returns:
        (2 · frequencies, block), (2 · frequencies, kernel), (outputs, 2 · frequencies); cosines first, then sines.
    """
    block = kernel + outputs
    frequencies = block // 2 + 1
    angles = torch.arange(frequencies)[:, None] * torch.arange(block) % block * (2 * math.pi / block)
    angles = angles.double()
    analysis = torch.cat([angles.cos(), -angles.sin()])
    share = torch.full((frequencies, 1), 2.0 / block, dtype=torch.float64)
    share[[0, -1]] = 1.0 / block
    synthesis = torch.cat([angles.cos() * share, -angles.sin() * share])[:, :outputs].t()
    return analysis.float(), analysis[:, :kernel].float(), synthesis.contiguous().float()


def spectral_conv(states: Tensor, weight: Tensor, gain: Tensor, groups: int) -> Tensor:
    """Correlate states with grouped taps, in fp32 also under autocast.

    Args:
        states: (batch, frames, width).
        weight: (width, width / groups, kernel), as ``nn.Conv1d`` has it; the first kernel // 2 taps reach back in time.
        gain: (kernel,), multiplies each tap of all channels.
        groups: channel groups.

    Returns:
        (batch, frames, width): what ``F.conv1d`` gives with padding kernel // 2, its last output left out when the
        kernel is even.
    """
    with torch.autocast(states.device.type, enabled=False):
        return _spectral_conv(states.float(), weight.float(), gain.float(), groups)


def _spectral_conv(states: Tensor, weight: Tensor, gain: Tensor, groups: int) -> Tensor:
    batch, frames, width = states.shape
    kernel, channels = weight.shape[-1], width // groups
    size = max(kernel, _LEAST_OUTPUTS)
    size += (kernel + size) % 2
    analysis, of_taps, synthesis = _bases(kernel, size)
    count = -(-frames // size)
    padded = F.pad(states, (0, 0, kernel // 2, count * size + kernel - kernel // 2 - frames))
    blocks = padded.unfold(1, kernel + size, size)  # (batch, count, width, kernel + size)
    found = (analysis @ blocks.mT).unflatten(-1, (groups, channels)).unflatten(2, (2, -1))
    frequencies = found.shape[3]
    # (frequencies · groups, 2 · batch · count, channels): real parts, then imaginary ones
    inputs = found.permute(3, 4, 2, 0, 1, 5).reshape(frequencies * groups, -1, channels)
    spectra = (of_taps * gain) @ weight.reshape(-1, kernel).t()  # (2 · frequencies, width · channels)
    real, imaginary = spectra.view(2, frequencies * groups, channels, channels)
    by_real, by_imaginary = (inputs @ part.mT for part in (real, imaginary))
    half = batch * count
    outputs = torch.stack(
        [  # by conjugated taps: a correlation
            by_real[:, :half] + by_imaginary[:, half:],
            by_real[:, half:] - by_imaginary[:, :half],
        ]
    )
    outputs = outputs.view(2, frequencies, groups, batch, count, channels).permute(3, 4, 0, 1, 2, 5)
    rows = synthesis @ outputs.reshape(batch, count, 2 * frequencies, width)  # (batch, count, size, width)
    return rows.flatten(1, 2)[:, :frames]
