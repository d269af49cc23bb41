"""Many probes as one batched model.

Probes of one seed see the same rows in the same order, and probes of one seed and input even the same numbers: their
first layers are one product of a batch with all their weights side by side, (batch, width) × (width, probes · hidden).
Gradients are written out: of a probe's 1.4 ms a step (width 768, one core) autograd would take a tenth.

A probe's draws (first weights, order of the rows, dropout) follow from its seed alone: inputs and rates are compared
on equal luck, and a probe trained in a bank is the probe trained alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

GradientOf = Callable[[Tensor], Tensor]
WEIGHTED = -1
"""The input that is the learned softmax-weighted sum of hidden states 1 to L (of state 0, if there is no other)."""


@dataclass(frozen=True)
class Probe:
    """What one probe is: the hidden state it reads or `WEIGHTED`, its learning rate and its seed."""

    input: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How probes are trained.

    Attributes:
        hidden: units of the ReLU layer; 0 for a linear probe.
        dropout: share of the hidden units that is dropped.
        batch_items: rows per step.
        max_epochs: at most so many passes.
        patience: a probe stops after so many epochs without a better validation score.
        plateau_patience: after more than so many such epochs its rate falls, and the count begins anew.
        plateau_factor: what the rate is then multiplied by.
    """

    hidden: int = 512
    dropout: float = 0.2
    batch_items: int = 64
    max_epochs: int = 100
    patience: int = 10
    plateau_patience: int = 3
    plateau_factor: float = 0.5


@dataclass(frozen=True)
class Shape:
    """Sizes of a probe: width of a state, hidden units (0: linear), outputs, states in the weighted sum (0: none)."""

    width: int
    hidden: int
    outputs: int
    mixed: int = 0

    @property
    def sections(self) -> list[tuple[int, ...]]:
        """Shapes of a probe's weights, as in `torch.nn.Linear` (out, in), (out,); the sum's logits come last."""
        first = self.hidden or self.outputs
        layers: list[tuple[int, ...]] = [(first, self.width), (first,)]
        if self.hidden:
            layers += [(self.outputs, self.hidden), (self.outputs,)]
        return [*layers, (self.mixed,)]

    @property
    def parameters(self) -> int:
        """How many numbers a probe learns."""
        return sum(torch.Size(section).numel() for section in self.sections)


def first_weights(seed: int, shape: Shape) -> tuple[list[Tensor], torch.Generator]:
    """Draw one probe's first weights, uniform in ±1/√fan-in like `torch.nn.Linear`; return the generator, to go on.

    The logits of the weighted sum begin at 0, all states alike.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for section, fan_in in zip(shape.sections[:-1], [shape.width] * 2 + [shape.hidden] * 2, strict=False):
        drawn.append((torch.rand(section, generator=generator) * 2 - 1) / fan_in**0.5)
    return [*drawn, torch.zeros(shape.mixed)], generator


def dropout_factors(rows: int, recipe: Recipe, generator: torch.Generator) -> Tensor | None:
    """Draw what the hidden units of a batch are multiplied by (rows, hidden); None without dropout."""
    if not recipe.hidden or not recipe.dropout:
        return None
    return (torch.rand(rows, recipe.hidden, generator=generator) >= recipe.dropout).float().div_(1 - recipe.dropout)


def blocks_of(probes: Sequence[Probe], floats: int | None, shape: Shape) -> Iterator[list[int]]:
    """Yield positions of probes that are to train side by side: of one seed, all weighted or none.

    Args:
        probes: in any order.
        floats: a block's probes have one input and at most so many weights, so that a processor's cache holds them;
            None: a block has all inputs.
        shape: of a probe.
    """

    def kind(position: int) -> tuple[int, bool, int]:
        probe = probes[position]
        return probe.seed, probe.input == WEIGHTED, 0 if floats is None else probe.input

    most = len(probes) if floats is None else max(1, floats // shape.parameters)
    for _, group in groupby(sorted(range(len(probes)), key=lambda i: (kind(i), probes[i].input, probes[i].rate)), kind):
        alike = list(group)
        yield from (alike[start : start + most] for start in range(0, len(alike), most))


class Block:
    """Weights of some probes of one seed.

    Attributes:
        inputs: the hidden state each probe reads; None: each its own weighted sum.
        dropout: share of the hidden units that is dropped in training.
        flat: all weights (floats,); `weights` are views of it.
        weights: (probes, …) for each of `Shape.sections`.
    """

    def __init__(
        self, shape: Shape, inputs: Sequence[int] | None, weights: Sequence[Tensor], dropout: float = 0.0
    ) -> None:
        self.shape = shape
        self.dropout = dropout
        self.inputs = None if inputs is None else list(inputs)
        self.flat = torch.cat([weight.flatten() for weight in weights])
        self.weights = self.views(self.flat)

    def __len__(self) -> int:
        return len(self.weights[0])

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return numbers, one per weight (floats,), in the weights' shapes."""
        probes = len(flat) // self.shape.parameters
        sizes = [probes * torch.Size(section).numel() for section in self.shape.sections]
        parts = zip(flat.split(sizes), self.shape.sections, strict=True)
        return [part.view(probes, *section) for part, section in parts]

    def keep(self, going: Tensor) -> None:
        """Drop probes.

        Args:
            going: bool (probes,).
        """
        if self.inputs is not None:
            self.inputs = [number for number, goes in zip(self.inputs, going.tolist(), strict=True) if goes]
        self.flat = torch.cat([weight[going].flatten() for weight in self.weights])
        self.weights = self.views(self.flat)

    def copy_to(self, flat: Tensor, probe: int) -> None:
        """Copy one probe's weights into the first of some numbers (`Shape.parameters` or more,)."""
        start = 0
        for weight in self.weights:
            part = weight[probe].flatten()
            flat[start : start + len(part)] = part
            start += len(part)

    def outputs(self, states: Tensor) -> Tensor:
        """Return (probes, rows, outputs) from standardised states (states, rows, width); nothing is dropped."""
        first = self._first(self._read(states)[0])
        return self._second(first.relu_()) if self.shape.hidden else first

    def gradient(
        self, states: Tensor, dropout: Tensor | None, loss_gradient: GradientOf, into: Sequence[Tensor]
    ) -> None:
        """Write the gradient of the sum of the probes' losses.

        Args:
            states: standardised, of a batch (states, rows, width).
            dropout: factors of the hidden units (rows, hidden).
            loss_gradient: from outputs (probes, rows, outputs) to the loss's gradient with respect to them.
            into: tensors in the weights' shapes.
        """
        read, mixture = self._read(states)
        first = self._first(read)
        if self.shape.hidden:
            first.relu_()
            if dropout is not None:
                first.mul_(dropout)
            grown = loss_gradient(self._second(first))
            torch.bmm(grown.transpose(1, 2), first, out=into[2])
            torch.sum(grown, dim=1, out=into[3])
            # Beyond a unit that is 0, by ReLU or dropout, nothing flows; to all others the factor is the same.
            back = self._like_first(len(read), first.shape[1])
            torch.bmm(grown if dropout is None else grown.div_(1 - self.dropout), self.weights[2], out=back)
            back.mul_(first.sign_())
        else:
            back = self._like_first(len(read), first.shape[1])
            back.copy_(loss_gradient(first))
        if len(read) == 1:
            rows = back.shape[1]
            side_by_side = back.transpose(0, 1).reshape(rows, -1)
            torch.mm(side_by_side.T, read[0], out=into[0].view(-1, self.shape.width))
        else:
            torch.bmm(back.transpose(1, 2), read, out=into[0])
        torch.sum(back, dim=1, out=into[1])
        if mixture is not None:
            asked = torch.bmm(back, self.weights[0]).flatten(1) @ states[-self.shape.mixed :].flatten(1).T
            torch.mul(mixture, asked - (mixture * asked).sum(dim=1, keepdim=True), out=into[-1])

    def _read(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what the probes read (probes or 1, rows, width), and the weighted sum's weights (probes, mixed)."""
        if self.inputs is None:
            mixture = torch.softmax(self.weights[-1], dim=1)
            summed = mixture @ states[-self.shape.mixed :].flatten(1)
            return summed.view(len(mixture), *states.shape[1:]), mixture
        if len(set(self.inputs)) == 1:
            return states[self.inputs[0]][None], None
        return states[self.inputs], None

    def _first(self, read: Tensor) -> Tensor:
        """Return the first layer (probes, rows, out); of probes that read the same, by one product."""
        weight, bias = self.weights[0], self.weights[1]
        if len(read) > 1 or len(weight) == 1:
            return torch.baddbmm(bias[:, None], read, weight.transpose(1, 2))
        wide = torch.addmm(bias.flatten(), read[0], weight.view(-1, self.shape.width).T)
        return wide.view(len(wide), len(weight), -1).transpose(0, 1)

    def _like_first(self, reads: int, rows: int) -> Tensor:
        """Return an empty tensor in the order in memory that `_first` gives."""
        probes, out = self.weights[1].shape
        if reads > 1 or probes == 1:
            return self.flat.new_empty(probes, rows, out)
        return self.flat.new_empty(rows, probes, out).transpose(0, 1)

    def _second(self, first: Tensor) -> Tensor:
        return torch.baddbmm(self.weights[3][:, None], first, self.weights[2].transpose(1, 2))
