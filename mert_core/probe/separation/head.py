"""Open-Unmix's network on frozen features (Stöter et al. 2019, as MARBLE uses it): a mask for a mixture's spectrogram.

Features → linear, batch norm, tanh → bidirectional LSTM, beside a way around it → linear, batch norm, ReLU → linear,
batch norm, ReLU = mask. One network per stem. All networks of a task that see the same mixtures (stems × rates) are
one batched model; only the last layer, whose 1,025 outputs per frame are most of the work, is computed network by
network, in memory that the processor's cache has seen before.

A network's draws (first weights, dropout) follow from its seed alone, so a network trained among others is the one
trained alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mert_core.probe.separation.lstm import bidirectional

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
        """Return the mask (rows, outputs) from the network's row of `Heads.hidden` (rows, hidden)."""
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


class Heads:
    """Weights of some networks.

    Attributes:
        shape: of each.
        weights: name → (networks, …), see `HeadShape.sections`.
        running: name of a batch norm → mean and variance in use after training (networks, 2, width).
    """

    def __init__(self, shape: HeadShape, weights: dict[str, Tensor], running: dict[str, Tensor]) -> None:
        self.shape, self.weights, self.running = shape, weights, running

    @classmethod
    def drawn(cls, shape: HeadShape, networks: int, generator: torch.Generator, device: str = "cpu") -> Heads:
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

    def only(self, positions: Sequence[int]) -> Heads:
        """Return some of the networks, with memory of their own."""
        chosen = list(positions)
        return Heads(
            self.shape,
            {name: weight.detach()[chosen] for name, weight in self.weights.items()},
            {name: part[chosen] for name, part in self.running.items()},
        )

    def put(self, positions: Sequence[int], others: Heads) -> None:
        """Take over other networks at some positions."""
        places = list(positions)
        for mine, theirs in ((self.weights, others.weights), (self.running, others.running)):
            for name, part in mine.items():
                part[places] = theirs[name].detach()

    @staticmethod
    def joined(parts: Sequence[Heads]) -> Heads:
        """Return all networks of several."""
        shape = parts[0].shape
        return Heads(
            shape,
            {name: torch.cat([part.weights[name].detach() for part in parts]) for name in parts[0].weights},
            {name: torch.cat([part.running[name] for part in parts]) for name in parts[0].running},
        )

    def hidden(self, features: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
        """Return what the last layer reads (networks, batch · frames, hidden).

        Args:
            features: standardised (inputs, batch, frames, width).
            dropout: in training: factors between LSTM layers, each (batch, frames, hidden); `HeadShape.layers` - 1.
        """
        training = dropout is not None
        shape = features.shape
        mixed = torch.softmax(self.weights["sum"], dim=1) @ features.flatten(1)
        first = torch.bmm(mixed.view(len(self), -1, shape[-1]), self.weights["first"])
        around = self._norm("norm1", first, training).tanh()
        inner = around.view(len(self), shape[1], shape[2], -1)
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
