"""Codecs as frozen acoustic teachers: waveform in, codes out, fast and exact for any length."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.data.target_kinds import Codes
from mert_core.teachers.base import Teacher
from mert_core.teachers.codec.model import Architecture, RvqVae

# Up to the recurrent layers a frame sees 798 samples, its own 320 and 478 before them: 6 + 1 by the first convolution,
# then at the strides s = 1, 2, 8, 40 with ratios r = 2, 4, 5, 8 another 2 s in the block and (2 r - 1) s going down.
_CONTEXT_HOPS = 2
# One piece, in hops: its activations are some megabytes at most.
_PIECE_HOPS = 40
# The beginning, in hops, that runs through the modules: anything from the context on would do.
_EDGE_HOPS = 4
# So long a stretch of frames runs through the recurrent layers at once: their gates take 600 kB per second of music.
_RECURRENT_FRAMES = 1500


class _Conv(nn.Module):
    """The convolution in one of the package's wrappers, without padding, over rows (time, channels).

    Its kernel is its stride or a multiple of it.
    """

    taps: Tensor
    bias: Tensor

    def __init__(self, wrapper: nn.Module) -> None:
        super().__init__()
        conv = next(inner for inner in wrapper.modules() if isinstance(inner, nn.Conv1d))
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


class _CodecBlock(nn.Module):
    """EnCodec's residual block over rows."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        _, first, _, second = block.get_submodule("block").children()
        self.first, self.second, self.shortcut = _Conv(first), _Conv(second), _Conv(block.get_submodule("shortcut"))

    def forward(self, rows: Tensor) -> Tensor:
        inner = F.elu_(self.first(F.elu(rows)))
        return self.second(inner, onto=self.shortcut(rows[len(rows) - len(inner) :]))


class Convolutions(nn.Module):
    """The encoder's layers before its recurrent ones, without weight norm.

    Args:
        layers: of ``encodec``'s ``SEANetEncoder``, in order.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self._modules_themselves = nn.Sequential(*layers)
        self._steps = nn.ModuleList(
            layer if isinstance(layer, nn.ELU) else _CodecBlock(layer) if hasattr(layer, "shortcut") else _Conv(layer)
            for layer in layers
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Return what the layers give for whole tracks: (batch, samples) → (batch, channels, ceil(samples / 320)).

        A GPU has no use for small pieces; there the modules take everything at once.
        """
        hops = waveform.shape[1] // HOP_SAMPLES
        if hops <= _EDGE_HOPS or waveform.device.type != "cpu":
            return self._modules_themselves(waveform.unsqueeze(1))
        beginning = self._modules_themselves(waveform[:, None, : _EDGE_HOPS * HOP_SAMPLES])
        inner = []
        for track in waveform[:, : hops * HOP_SAMPLES]:
            found = []
            for start in range(_EDGE_HOPS, hops, _PIECE_HOPS):
                count = min(_PIECE_HOPS, hops - start)
                rows = track[(start - _CONTEXT_HOPS) * HOP_SAMPLES : (start + count) * HOP_SAMPLES, None]
                for step in self._steps:
                    rows = F.elu_(rows) if isinstance(step, nn.ELU) else step(rows)
                found.append(rows[len(rows) - count :])
            inner.append(torch.cat(found).t())
        parts = [beginning, torch.stack(inner)]
        if waveform.shape[1] % HOP_SAMPLES:
            end = self._modules_themselves(waveform[:, None, (hops - _CONTEXT_HOPS) * HOP_SAMPLES :])
            parts.append(end[:, :, _CONTEXT_HOPS:])
        return torch.cat(parts, dim=2)


class CodecTeacher(Teacher):
    """A frozen RVQ-VAE that labels music with the codes of its first codebooks.

    It is causal with a memory that has no end, so a frame has heard its track from the beginning.
    """

    context_frames = None
    causal = True
    tolerance = 0.0

    def __init__(self, settings: Any, architecture: Architecture, codebooks: int) -> None:
        super().__init__(settings)
        self.kind = Codes(codebooks, architecture.entries)
        self._take(RvqVae(architecture))

    def adopt(self, model: RvqVae) -> Self:
        """Take over a fitted model's weights."""
        with torch.random.fork_rng(devices=[]):
            own = RvqVae(model.architecture)  # a deep copy is not to be had of what has weight norm
        own.load_state_dict(model.state_dict())
        self._take(own)
        return self.freeze()

    def _take(self, model: RvqVae) -> None:
        self.model = model
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)  # the same product once instead of in every pass

    def freeze(self) -> Self:
        """Return itself without gradients, the weights laid out for speed."""
        super().freeze()
        layers = list(self.model.encoder.model)
        recurrent = next(place for place, layer in enumerate(layers) if type(layer).__name__ == "SLSTM")
        # in a tuple, so that they are no further modules under other names
        self._parts = Convolutions(layers[:recurrent]), layers[recurrent], nn.Sequential(*layers[recurrent + 1 :])
        return self

    def context_span(self, first: int, frames: int, track_frames: int) -> tuple[int, int]:
        """Return the track from its beginning to the crop's end."""
        return 0, first + frames

    @torch.inference_mode()
    def forward(self, waveform: Tensor) -> Tensor:
        """Return the codes of whole tracks, or of their beginnings.

        The codes are those of one pass over the whole track, for any length. Everything is causal: a track padded at
        its end gets the same codes up to its own end. Several tracks share the recurrent layers' products, whose
        weights have to come from memory at every step: from about a dozen tracks on they take half the time.

        Args:
            waveform: (batch, samples) float32 at 24 kHz.

        Returns:
            int64 (batch, frames, codebooks) with ``frames = ceil(samples / 320)``.
        """
        return self.model.quantize(self.latent(waveform), self.kind.width)

    @torch.inference_mode()
    def latent(self, waveform: Tensor) -> Tensor:
        """Return the latents before quantisation: (batch, samples) → (batch, dimension, frames)."""
        convolutions, recurrent, last = self._parts
        states = convolutions(waveform).permute(2, 0, 1)
        lstm: Any = recurrent.lstm
        memory, found = None, []
        for part in states.split(_RECURRENT_FRAMES):
            out, memory = lstm(part, memory)
            found.append(out + part if recurrent.skip else out)
        return last(torch.cat(found).permute(1, 2, 0))
