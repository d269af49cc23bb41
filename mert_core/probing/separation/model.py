"""Open-Unmix's network on frozen features (Stöter et al. 2019, as MARBLE uses it): a mask for a mixture's spectrogram.

Features → linear, batch norm, tanh → bidirectional LSTM, beside a way around it → linear, batch norm, ReLU → linear,
batch norm, ReLU = mask. One network per stem. All networks of a task (stems × rates × seeds) are one batched model;
only the last layer, whose 1,025 outputs per frame are most of the arithmetic, is computed network by network, in memory
that the processor's cache has seen before.

A network's draws (first weights, dropout) follow from its seed alone, so a network trained among others is the one
trained alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mert_core.audio.grid import HOP_SAMPLES


class _Recurrence(torch.autograd.Function):
    """States of LSTMs from what their inputs contribute: (steps, sets, batch, 4 · hidden) → (…, hidden).

    The four parts are: output gate, input gate, forget gate (all by sigmoid), and new content (by tanh).
    """

    @staticmethod
    def forward(ctx: Any, contributed: Tensor, recurrent: Tensor) -> Tensor:
        steps, sets, batch, four = contributed.shape
        hidden = four // 4
        gates = contributed.clone()
        states, cells, squashed = (contributed.new_empty(steps, sets, batch, hidden) for _ in range(3))
        cell = contributed.new_zeros(sets, batch, hidden)
        state = None
        # views are made for all steps at once: one by one they would take as long as the arithmetic
        all_views = (gates, gates[..., : 3 * hidden], *gates.split(hidden, dim=-1), states, cells, squashed)
        views = zip(*(part.unbind(0) for part in all_views), strict=True)
        for gate, sigmoids, out, enter, keep, new, state_out, cell_out, squashed_out in views:
            if state is not None:
                gate.baddbmm_(state, recurrent)
            sigmoids.sigmoid_()
            new.tanh_()
            cell = torch.addcmul(enter * new, keep, cell, out=cell_out)
            state = torch.mul(out, torch.tanh(cell, out=squashed_out), out=state_out)
        ctx.save_for_backward(gates, states, cells, squashed, recurrent)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (outer,) = gradients
        gates, states, cells, squashed, recurrent = ctx.saved_tensors
        steps, sets, batch, hidden = states.shape
        out, enter, keep, new = gates.split(hidden, dim=-1)
        before = torch.cat([torch.zeros_like(cells[:1]), cells[:-1]])
        # what each step's own derivatives are, for all steps at once
        of_out = squashed * out * (1 - out)
        of_cell = out * (1 - squashed.square())
        of_rest = torch.stack(
            [new * enter * (1 - enter), before * keep * (1 - keep), enter * (1 - new.square())], dim=-2
        )
        found = torch.empty_like(gates)
        parts = found.view(steps, sets, batch, 4, hidden)
        back = recurrent.transpose(1, 2)
        cell = torch.zeros_like(cells[0])
        state = outer[steps - 1].clone()
        all_views = (outer, found, parts[..., 0, :], parts[..., 1:, :], of_out, of_cell, of_rest, keep)
        views = list(zip(*(part.unbind(0) for part in all_views), strict=True))[::-1]
        for step, (_, gate, first, rest, factor_out, factor_cell, factor_rest, kept) in enumerate(views):
            cell.addcmul_(state, factor_cell)
            torch.mul(state, factor_out, out=first)
            torch.mul(cell.unsqueeze(-2), factor_rest, out=rest)
            if step + 1 < steps:
                cell.mul_(kept)
                torch.baddbmm(views[step + 1][0], gate, back, out=state)
        earlier = states[:-1].permute(1, 3, 0, 2).flatten(2)
        later = found[1:].permute(1, 0, 2, 3).flatten(1, 2)
        return found, torch.bmm(earlier, later)


def bidirectional(inputs: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor) -> Tensor:
    """Run one layer.

    Args:
        inputs: (sets, batch, steps, width).
        weight: of the inputs (sets, width, 2 · 4 · hidden): forward direction, then backward; each output gate, input
            gate, forget gate, new content.
        bias: (sets, 2 · 4 · hidden).
        recurrent: of the states (sets, 2, hidden, 4 · hidden).

    Returns:
        (sets, batch, steps, 2 · hidden): forward, then backward.
    """
    sets, batch, steps, width = inputs.shape
    hidden = recurrent.shape[2]
    contributed = torch.baddbmm(bias[:, None], inputs.reshape(sets, batch * steps, width), weight)
    by_step = contributed.view(sets, batch, steps, 2, 4 * hidden).permute(2, 0, 3, 1, 4)
    both = torch.stack([by_step[:, :, 0], by_step[:, :, 1].flip(0)], dim=2).flatten(1, 2)
    states = _Recurrence.apply(both, recurrent.flatten(0, 1)).view(steps, sets, 2, batch, hidden)
    return torch.cat([states[:, :, 0], states[:, :, 1].flip(0)], dim=-1).permute(1, 2, 0, 3)


LAST_WEIGHTS = ("last", "norm3.scale", "norm3.shift")
_MOMENTUM, _EPSILON = 0.1, 1e-5


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a network.

    Attributes:
        inputs: how many hidden states the learned weighted sum is of; 1: that one alone.
        width: of a hidden state.
        hidden: of the layers; an even number, half for each direction.
        layers: of the LSTM.
        outputs: channels × bins of a mask.
    """

    inputs: int
    width: int
    hidden: int
    layers: int
    outputs: int

    def sections(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Return each weight's shape, and the bound of the uniform distribution that it is drawn from; 0: constant."""
        hidden, half = self.hidden, self.hidden // 2
        found: dict[str, tuple[tuple[int, ...], float]] = {"sum": ((self.inputs,), 0.0)}
        found["first"] = ((self.width, hidden), self.width**-0.5)
        for layer in range(self.layers):
            found[f"lstm{layer}.weight"] = ((hidden, 8 * half), half**-0.5)
            found[f"lstm{layer}.bias"] = ((8 * half,), half**-0.5)
            found[f"lstm{layer}.recurrent"] = ((2, half, 4 * half), half**-0.5)
        found["second"] = ((2 * hidden, hidden), (2 * hidden) ** -0.5)
        found["last"] = ((hidden, self.outputs), hidden**-0.5)
        for norm, size in self.norms().items():
            found[f"{norm}.scale"] = found[f"{norm}.shift"] = ((size,), 0.0)
        return found

    def norms(self) -> dict[str, int]:
        """Return the width of each batch norm."""
        return {"norm1": self.hidden, "norm2": self.hidden, "norm3": self.outputs}


def _first_value(name: str) -> float:
    """Return what a constant weight begins at: a mask begins around 1 and so lets the mixture through."""
    return 1.0 if name.endswith(".scale") or name == "norm3.shift" else 0.0


@dataclass(frozen=True)
class LastLayer:
    """What one network's mask is computed with: (hidden, outputs), (outputs,), (outputs,), (2, outputs)."""

    weight: Tensor
    scale: Tensor
    shift: Tensor
    running: Tensor

    def mask(self, hidden: Tensor, training: bool = False) -> Tensor:
        """Return the mask (rows, outputs) from the network's row of `SeparatorWeights.hidden` (rows, hidden)."""
        normed = functional.batch_norm(
            hidden @ self.weight,
            self.running[0],
            self.running[1],
            self.scale,
            self.shift,
            training,
            _MOMENTUM,
            _EPSILON,
        )
        return normed.relu_()


class SeparatorWeights:
    """Weights of some networks.

    Attributes:
        shape: of each.
        weights: name → (networks, …), see `HeadShape.sections`.
        running: name of a batch norm → mean and variance in use after training (networks, 2, width).
    """

    def __init__(self, shape: HeadShape, weights: dict[str, Tensor], running: dict[str, Tensor]) -> None:
        self.shape, self.weights, self.running = shape, weights, running

    @classmethod
    def drawn(
        cls, shape: HeadShape, networks: int, generator: torch.Generator, device: str = "cpu"
    ) -> SeparatorWeights:
        """Return networks that all begin with the same drawn weights."""
        weights = {
            name: (torch.rand(size, generator=generator) * 2 - 1) * bound
            if bound
            else torch.full(size, _first_value(name))
            for name, (size, bound) in shape.sections().items()
        }
        running = {name: torch.stack([torch.zeros(size), torch.ones(size)]) for name, size in shape.norms().items()}
        first = cls(
            shape, *({name: part[None].to(device) for name, part in parts.items()} for parts in (weights, running))
        )
        return first.only([0] * networks)

    def __len__(self) -> int:
        return len(self.weights["sum"])

    def only(self, positions: Sequence[int]) -> SeparatorWeights:
        """Return some of the networks, with memory of their own."""
        chosen = list(positions)
        return SeparatorWeights(
            self.shape,
            {name: weight.detach()[chosen] for name, weight in self.weights.items()},
            {name: part[chosen] for name, part in self.running.items()},
        )

    def put(self, positions: Sequence[int], others: SeparatorWeights) -> None:
        """Take over other networks at some positions."""
        places = list(positions)
        for mine, theirs in ((self.weights, others.weights), (self.running, others.running)):
            for name, part in mine.items():
                part[places] = theirs[name].detach()

    @staticmethod
    def joined(parts: Sequence[SeparatorWeights]) -> SeparatorWeights:
        """Return all networks of several."""
        shape = parts[0].shape
        return SeparatorWeights(
            shape,
            {name: torch.cat([part.weights[name].detach() for part in parts]) for name in parts[0].weights},
            {name: torch.cat([part.running[name] for part in parts]) for name in parts[0].running},
        )

    def hidden(
        self, features: Sequence[Tensor], readers: Sequence[int], dropout: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return what the last layer reads (networks, batch · frames, hidden).

        Args:
            features: standardised, each (inputs, batch, frames, width).
            readers: how many networks read each of those, in the networks' order.
            dropout: in training: factors between LSTM layers, each (networks, batch, frames, hidden), one less than
                there are layers.
        """
        training = dropout is not None
        sums = torch.softmax(self.weights["sum"], dim=1).split(list(readers))
        mixed = torch.cat([weights @ read.flatten(1) for weights, read in zip(sums, features, strict=True)])
        _, batch, frames, width = features[0].shape
        first = torch.bmm(mixed.view(len(self), -1, width), self.weights["first"])
        around = self._norm("norm1", first, training).tanh()
        inner = around.view(len(self), batch, frames, -1)
        for layer in range(self.shape.layers):
            if dropout is not None and layer:
                inner = inner * dropout[layer - 1]
            inner = bidirectional(
                inner, *(self.weights[f"lstm{layer}.{part}"] for part in ("weight", "bias", "recurrent"))
            )
        both = torch.cat([around, inner.reshape(around.shape)], dim=-1)
        return self._norm("norm2", torch.bmm(both, self.weights["second"]), training).relu()

    def last(self, network: int) -> LastLayer:
        """Return one network's last layer; a view, so it learns with the rest."""
        weight, scale, shift = (self.weights[name].detach()[network] for name in LAST_WEIGHTS)
        return LastLayer(weight, scale, shift, self.running["norm3"][network])

    def _norm(self, name: str, values: Tensor, training: bool) -> Tensor:
        """Return batch norm over rows, network by network, of (networks, rows, width)."""
        if training:
            variance, mean = torch.var_mean(values, dim=1, correction=0)
            with torch.no_grad():
                rows = values.shape[1]
                unbiased = variance * (rows / max(1, rows - 1))
                self.running[name].lerp_(torch.stack([mean, unbiased], dim=1), _MOMENTUM)
        else:
            mean, variance = self.running[name].unbind(1)
        scale = self.weights[f"{name}.scale"] * (variance + _EPSILON).rsqrt()
        return torch.addcmul((self.weights[f"{name}.shift"] - mean * scale)[:, None], values, scale[:, None])


FFT_SAMPLES = 2048
BINS = FFT_SAMPLES // 2 + 1


def frames_of(samples: int) -> int:
    """Return how many frames a waveform has; frame i is centred at sample 320 · i."""
    return samples // HOP_SAMPLES + 1


def spectrum(waveform: Tensor) -> Tensor:
    """Return the complex spectrum (…, frames, bins) of a waveform (…, samples), with silence beyond both ends."""
    flat = waveform.reshape(-1, waveform.shape[-1])
    window = torch.hann_window(FFT_SAMPLES, dtype=flat.dtype, device=flat.device)
    found = torch.stft(flat, FFT_SAMPLES, HOP_SAMPLES, window=window, pad_mode="constant", return_complex=True)
    return found.transpose(1, 2).reshape(*waveform.shape[:-1], -1, BINS)


def magnitude(complex_spectrum: Tensor) -> Tensor:
    """Return absolute values; several times faster than `abs`, which guards against overflow."""
    parts = torch.view_as_real(complex_spectrum)
    return (parts[..., 0].square() + parts[..., 1].square()).sqrt()


def waveform_of(complex_spectrum: Tensor, samples: int) -> Tensor:
    """Return the waveform (…, samples) of a spectrum (…, frames, bins): the inverse of `spectrum`."""
    flat = complex_spectrum.reshape(-1, *complex_spectrum.shape[-2:]).transpose(1, 2)
    window = torch.hann_window(FFT_SAMPLES, dtype=flat.real.dtype, device=flat.device)
    found = torch.istft(flat, FFT_SAMPLES, HOP_SAMPLES, window=window, length=samples)
    return found.reshape(*complex_spectrum.shape[:-2], samples)
