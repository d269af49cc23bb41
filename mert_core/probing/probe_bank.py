"""Many probes as one batched model.

Probes of one seed see the same rows in the same order, and probes of one seed and input even the same numbers: their
first layers are one product of a batch with all their weights side by side, (batch, width) × (width, probes · hidden).

Gradients are written out (`ProbeBank.gradient`, `ProbeLoss.gradient`). At the published hidden layer of 512, on one
core, a whole step takes 1.38 times as long with autograd over the same products, 1.73 times with `torch.func.vmap` of
`grad` over stacked modules; for probes of the weighted sum it is 1.79 and 1.65 times, for linear ones 1.9 and 4.2 times
(paired medians of 40 rounds, width 768, batches of 64). The tests hold them against autograd and against probes that
are trained one by one.

A probe's draws (first weights, order of the rows, dropout) follow from its seed alone: inputs and rates are compared
on equal luck, and a probe trained in a bank is the probe trained alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.errors import MertError

WEIGHTED = -1
"""The input that is the learned softmax-weighted sum of hidden states 1 to L (of state 0, if there is no other)."""


@dataclass(frozen=True)
class ProbeSpec:
    """What one probe is: the hidden state it reads or `WEIGHTED`, its learning rate and its seed."""

    input: int
    rate: float
    seed: int


@dataclass(frozen=True)
class ProbeSettings:
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


def dropout_factors(rows: int, settings: ProbeSettings, generator: torch.Generator) -> Tensor | None:
    """Draw what the hidden units of a batch are multiplied by (rows, hidden); None without dropout."""
    if not settings.hidden or not settings.dropout:
        return None
    kept = torch.rand(rows, settings.hidden, generator=generator) >= settings.dropout
    return kept.float().div_(1 - settings.dropout)


def blocks_of(probes: Sequence[ProbeSpec], floats: int | None, shape: Shape) -> Iterator[list[int]]:
    """Yield indices of the probes that are to train side by side: of one seed, all weighted or none, by input.

    A block has at most ``floats`` weights (but at least one probe), so that a processor's cache holds them; None: as
    many as there are.
    """

    def kind(index: int) -> tuple[int, bool]:
        return probes[index].seed, probes[index].input == WEIGHTED

    most = len(probes) if floats is None else max(1, floats // shape.parameters)
    order = sorted(range(len(probes)), key=lambda i: (kind(i), probes[i].input, probes[i].rate))
    for _, group in groupby(order, kind):
        alike = list(group)
        count = -(-len(alike) // most)
        bounds = [len(alike) * number // count for number in range(count + 1)]  # of one size: cores share them evenly
        yield from (alike[start:stop] for start, stop in pairwise(bounds))


class ProbeBank:
    """Weights of some probes of one seed.

    Attributes:
        inputs: the hidden state each probe reads; None: each its own weighted sum.
        dropout: share of the hidden units that is dropped in training.
        weights: (probes, …) for each of `Shape.sections`.
    """

    def __init__(
        self, shape: Shape, inputs: Sequence[int] | None, weights: Sequence[Tensor], dropout: float = 0.0
    ) -> None:
        self.shape = shape
        self.dropout = dropout
        self.inputs = None if inputs is None else list(inputs)
        self.weights = list(weights)
        self._readers = self._side_by_side()

    def keep(self, going: Tensor) -> None:
        """Drop all probes but some, bool (probes,)."""
        if self.inputs is not None:
            self.inputs = [number for number, goes in zip(self.inputs, going.tolist(), strict=True) if goes]
        self.weights = [weight[going] for weight in self.weights]
        self._readers = self._side_by_side()

    def outputs(self, states: Tensor) -> Tensor:
        """Return (probes, rows, outputs) from standardized states (states, rows, width); nothing is dropped."""
        first, _, _ = self._first(states)
        return self._second(first.relu_()) if self.shape.hidden else first

    def gradient(
        self, states: Tensor, dropout: Tensor | None, loss_gradient: Callable[[Tensor], Tensor], into: Sequence[Tensor]
    ) -> None:
        """Write the gradient of the sum of the probes' losses into tensors of the weights' shapes.

        Args:
            states: standardized states of a batch (states, rows, width).
            dropout: factors of the hidden units (rows, hidden).
            loss_gradient: from outputs (probes, rows, outputs) to the loss's gradient with respect to them.
            into: one tensor per weight.
        """
        # `back` is the gradient at the first layer's outputs.
        first, mixture, summed = self._first(states)
        back = torch.empty_like(first)
        if self.shape.hidden:
            first.relu_()
            if dropout is not None:
                first.mul_(dropout)
            at_outputs = loss_gradient(self._second(first))
            torch.bmm(at_outputs.transpose(1, 2), first, out=into[2])
            torch.sum(at_outputs, dim=1, out=into[3])
            # Beyond a unit that is 0, by ReLU or dropout, nothing flows; to all others the factor is the same.
            torch.bmm(at_outputs if dropout is None else at_outputs.div_(1 - self.dropout), self.weights[2], out=back)
            back.mul_(first.sign_())
        else:
            back.copy_(loss_gradient(first))
        torch.sum(back, dim=1, out=into[1])
        if mixture is not None and summed is not None:
            # Through the softmax: each state's share of the gradient, less what they have on average.
            torch.bmm(back.transpose(1, 2), summed, out=into[0])
            by_state = torch.bmm(back, self.weights[0]).flatten(1) @ states[-self.shape.mixed :].flatten(1).T
            torch.mul(mixture, by_state - (mixture * by_state).sum(dim=1, keepdim=True), out=into[-1])
            return
        wide, gradient = _wide(back), into[0].view(-1, self.shape.width)
        for number, part in self._readers:
            torch.mm(wide[:, part].T, states[number], out=gradient[part])

    def _first(self, states: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the first layer (probes, rows, out); of a weighted sum, its weights (probes, mixed) and the sum too.

        In memory the rows of one state come first: all probes that read it are one product.
        """
        weight, bias, rows = self.weights[0], self.weights[1], states.shape[1]
        if self.inputs is None:
            mixture = torch.softmax(self.weights[-1], dim=1)
            summed = (mixture @ states[-self.shape.mixed :].flatten(1)).view(len(mixture), rows, -1)
            return torch.baddbmm(bias[:, None], summed, weight.transpose(1, 2)), mixture, summed
        first = states.new_empty(rows, *bias.shape).transpose(0, 1)
        wide, side_by_side, biases = _wide(first), weight.view(-1, self.shape.width), bias.flatten()
        for number, part in self._readers:
            torch.addmm(biases[part], states[number], side_by_side[part].T, out=wide[:, part])
        return first, None, None

    def _side_by_side(self) -> list[tuple[int, slice]]:
        """Return each hidden state that is read and where the first layers of its readers lie."""
        size, start, parts = self.weights[1].shape[1], 0, []
        for number, readers in groupby(self.inputs or []):
            parts.append((number, slice(start, start + size * len(list(readers)))))
            start = parts[-1][1].stop
        return parts

    def _second(self, first: Tensor) -> Tensor:
        return torch.baddbmm(self.weights[3][:, None], first, self.weights[2].transpose(1, 2))


def _wide(first: Tensor) -> Tensor:
    """Return a layer (probes, rows, out), whose rows come first in memory, as (rows, probes · out)."""
    return first.transpose(0, 1).flatten(1)


class ProbeAdam:
    """`torch.optim.Adam` without weight decay for weights (probes, …), each probe at a rate of its own.

    Rates and probes change between epochs only, so that the optimizer is made anew for each stretch of steps: a
    parameter group per rate, whose parameters are slices of the weights. Its fused step is one pass over the memory; a
    step of a 95M model's probe takes 4 to 10 % longer than with the kernel called directly, a quarter less than with a
    rate tensor and torch's operators.
    """

    def __init__(self, weights: Sequence[Tensor], rates: NDArray[np.float64]) -> None:
        self.rates = rates  # of each probe (probes,)
        self._steps = 0
        self._mean = [torch.zeros_like(weight) for weight in weights]
        self._square = [torch.zeros_like(weight) for weight in weights]

    def keep(self, going: Tensor) -> None:
        """Drop all probes but some, bool (probes,)."""
        self._mean, self._square = ([part[going] for part in moment] for moment in (self._mean, self._square))
        self.rates = self.rates[going.cpu().numpy()]

    def optimizer(self, weights: Sequence[Tensor], gradient: Sequence[Tensor], steps: int) -> torch.optim.Adam:
        """Return the optimizer of the next so many steps, which goes on from the moments of those before.

        It changes the weights, (probes, …) each. ``gradient`` has their shapes and is overwritten before each step.
        """
        parts = [each for each in zip(weights, gradient, self._mean, self._square, strict=True) if each[0].numel()]
        groups: list[dict[str, Any]] = []
        state: dict[Tensor, dict[str, Tensor]] = {}
        for rate in np.unique(self.rates):
            probes = np.flatnonzero(self.rates == rate).tolist()
            slices = [...] if len(probes) == len(self.rates) else probes  # of one rate: each weight as a whole
            group = []
            for weight, grown, mean, square in ([part[i] for part in each] for each in parts for i in slices):
                weight.grad = grown
                # The fused step counts on the parameter's device, in float32.
                step = torch.full((), float(self._steps), device=weight.device)
                state[weight] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
                group.append(weight)
            groups.append({"params": group, "lr": float(rate)})
        optimizer = torch.optim.Adam(groups, fused=True)
        optimizer.state.update(state)
        self._steps += steps
        return optimizer


FEW_CLASSES = 24
"""Up to so many classes the softmax goes over the first dimension; measured on a processor with AVX512."""


@dataclass(frozen=True)
class ProbeLoss:
    """One loss.

    Attributes:
        kind: ``single``: cross-entropy over classes; ``multi``: binary cross-entropy per class, with logits;
            ``regression``: mean squared error on targets that are standardized with the training rows' moments.
        outputs: how many numbers a probe gives: classes or targets.
    """

    kind: Literal["single", "multi", "regression"]
    outputs: int

    def targets(self, truth: NDArray[Any]) -> Tensor:
        """Return truth as the loss wants it: int64 (rows,) if single, else float32 (rows, outputs).

        Raises:
            MertError: truth of another shape, or a class that is not one of the outputs.
        """
        if self.kind == "single":
            if truth.ndim != 1 or not np.issubdtype(truth.dtype, np.integer):
                raise MertError(
                    f"expected one class per row, found truth of shape {truth.shape} and type {truth.dtype}"
                )
            if len(truth) and not (truth.min() >= 0 and truth.max() < self.outputs):
                raise MertError(
                    f"rows to train on have classes {truth.min()} to {truth.max()}, expected 0 to {self.outputs - 1}; "
                    "leave out what has no class"
                )
            return torch.from_numpy(truth.astype(np.int64))
        if truth.shape != (len(truth), self.outputs):
            raise MertError(f"expected truth (rows, {self.outputs}), found {truth.shape}")
        return torch.from_numpy(truth.astype(np.float32))

    def gradient(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the gradient with respect to outputs (probes, batch, outputs); for ``truth`` see `targets`.

        The loss is the sum over probes of each one's mean over the batch: no probe's gradient depends on another.
        """
        batch = outputs.shape[1]
        if self.kind == "single":  # softmax − one-hot
            index = truth[None, :, None].expand(len(outputs), batch, 1)
            shares = _softmax(outputs)
            return shares.scatter_add_(2, index, shares.new_full(index.shape, -1.0)).div_(batch)
        if self.kind == "multi":
            return torch.sigmoid(outputs).sub_(truth).div_(batch * self.outputs)
        return (outputs - truth).mul_(2 / (batch * self.outputs))


def _softmax(outputs: Tensor) -> Tensor:
    """Return the softmax over classes of (probes, batch, classes), rows first in memory as a block's outputs are.

    torch's own is written for many classes: with 10 it takes ten times as long as over the first dimension.
    """
    if outputs.shape[2] > FEW_CLASSES:
        return torch.softmax(outputs, dim=2)
    return torch.softmax(outputs.permute(2, 1, 0).contiguous(), dim=0).permute(2, 1, 0)
