"""Strided convolution over time as matrix products on views: no window is ever copied.

With rows of time and columns of channels, a stride of s makes s neighbouring rows one row of a matrix (rows / s,
s · channels), and the taps of a kernel fall into blocks of s: block j multiplies that matrix from its row j on. So a
kernel of 3 and a stride of 2 are two products, of 2 taps and of 1, and so is each of their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


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
    device = rows.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        wanted = torch.get_autocast_dtype(device)
        rows, weight = rows.to(wanted), weight.to(wanted)
    return _StridedConv.apply(rows, weight.permute(2, 1, 0).flatten(0, 1), stride)
