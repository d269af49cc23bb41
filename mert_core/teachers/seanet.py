"""The convolutions of EnCodec's encoder, fast and exact for any length.

Everything is causal, so a track runs in short pieces that stay in the processor's cache, each with the samples before
it that it sees. Within a piece a convolution is a few matrix products on views of rows of time (see
``mert_core.model.strided``): the strided ones have kernels of two strides, so of two products, and the residual
block's sum is what the last product adds to. Only the track's edges, whose reflection is part of the result, run
through the modules themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.frames import HOP_SAMPLES

# Up to the recurrent layers a frame sees 798 samples, its own 320 and 478 before them: 6 + 1 by the first convolution,
# then at the strides s = 1, 2, 8, 40 with ratios r = 2, 4, 5, 8 another 2 s in the block and (2 r - 1) s going down.
_CONTEXT_HOPS = 2
# One piece, in hops: its activations are some megabytes at most.
_PIECE_HOPS = 40
# The beginning, in hops, that runs through the modules: anything from the context on would do.
_EDGE_HOPS = 4


class _Conv(nn.Module):
    """A convolution without padding over rows (time, channels); its kernel is its stride or a multiple of it."""

    taps: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        (stride,), (kernel,), (dilation,) = conv.stride, conv.kernel_size, conv.dilation
        if kernel % stride or dilation != 1 or conv.groups != 1 or conv.bias is None:
            raise ValueError(f"{conv} is none of EnCodec's convolutions")
        self.stride = stride
        blocks = conv.weight.detach().permute(2, 1, 0).reshape(kernel // stride, -1, conv.out_channels)
        self.register_buffer("taps", blocks.contiguous(), persistent=False)
        self.register_buffer("bias", conv.bias.detach().clone(), persistent=False)

    def forward(self, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Convolve: (time, channels) → (time / stride - kernel / stride + 1, outputs); rows before that are not seen.

        Args:
            rows: contiguous. Where time is no multiple of the stride the first rows are left out.
            onto: has the result added to it.
        """
        time, channels = rows.shape
        wide = rows[time % self.stride :].view(-1, self.stride * channels)
        count = len(wide) - len(self.taps) + 1
        if channels == 1:  # the waveform: products of one column would be a loop
            windows = rows[:, 0].unfold(0, len(self.taps), 1)
            return torch.addmm(self.bias, windows, self.taps[:, 0])
        out = torch.addmm(self.bias, wide[:count], self.taps[0]) if onto is None else onto.add_(self.bias)
        for number in range(0 if onto is not None else 1, len(self.taps)):
            out.addmm_(wide[number : number + count], self.taps[number])
        return out


class _Block(nn.Module):
    """EnCodec's residual block over rows."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        _, first, _, second = block.get_submodule("block").children()
        self.first, self.second = _Conv(_conv_of(first)), _Conv(_conv_of(second))
        self.shortcut = _Conv(_conv_of(block.get_submodule("shortcut")))

    def forward(self, rows: Tensor) -> Tensor:
        inner = F.elu_(self.first(F.elu(rows)))
        return self.second(inner, onto=self.shortcut(rows[len(rows) - len(inner) :]))


def _conv_of(module: nn.Module) -> nn.Conv1d:
    """Return the convolution within the package's wrappers."""
    return next(inner for inner in module.modules() if isinstance(inner, nn.Conv1d))


class Convolutions(nn.Module):
    """The encoder's layers before its recurrent ones, without weight norm.

    Args:
        layers: of ``encodec``'s ``SEANetEncoder``, in order.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self._modules_themselves = nn.Sequential(*layers)
        self._steps = nn.ModuleList()
        for layer in layers:
            if isinstance(layer, nn.ELU):
                self._steps.append(layer)
            elif hasattr(layer, "shortcut"):
                self._steps.append(_Block(layer))
            else:
                self._steps.append(_Conv(_conv_of(layer)))

    def forward(self, waveform: Tensor) -> Tensor:
        """Return what the layers give for whole tracks: (batch, samples) → (batch, channels, ceil(samples / 320)).

        A GPU has no use for small pieces; there the modules take everything at once.
        """
        hops = waveform.shape[1] // HOP_SAMPLES
        if hops <= _EDGE_HOPS or waveform.device.type != "cpu":
            return self._modules_themselves(waveform.unsqueeze(1))
        beginning = self._modules_themselves(waveform[:, None, : _EDGE_HOPS * HOP_SAMPLES])
        parts = [beginning, torch.stack([self._inner(track) for track in waveform[:, : hops * HOP_SAMPLES]])]
        if waveform.shape[1] % HOP_SAMPLES:
            end = self._modules_themselves(waveform[:, None, (hops - _CONTEXT_HOPS) * HOP_SAMPLES :])
            parts.append(end[:, :, _CONTEXT_HOPS:])
        return torch.cat(parts, dim=2)

    def _inner(self, track: Tensor) -> Tensor:
        """Return the frames after the beginning: (samples,) → (channels, frames)."""
        hops = len(track) // HOP_SAMPLES
        found = []
        for start in range(_EDGE_HOPS, hops, _PIECE_HOPS):
            count = min(_PIECE_HOPS, hops - start)
            rows = track[(start - _CONTEXT_HOPS) * HOP_SAMPLES : (start + count) * HOP_SAMPLES, None]
            for step in self._steps:
                rows = F.elu_(rows) if isinstance(step, nn.ELU) else step(rows)
            found.append(rows[len(rows) - count :])
        return torch.cat(found).t()
