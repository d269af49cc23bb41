"""Many bidirectional LSTM layers at once, each with weights of its own.

`torch.nn.LSTM` computes one set of weights; a task has stems × rates × seeds of them. Here all sets and both directions
are one batched product per step, with gradients written out: autograd would record a dozen operations per step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
