"""Weights and optimiser as whole tensors, however many workers share them, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mert_core.pretrain.parallel import is_sharded, share_like, whole

Tensors = dict[str, Any]
"""``parameters`` by name, and the ``optimiser``'s state dictionary."""


def parameters_of(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return the parameters by name, whole; all workers must call this together.

    Args:
        module: the model. What is shared out is gathered tensor by tensor, on the CPU; else nothing is copied.
        keep: whether this worker wants them; another one helps to gather and gets nothing.
    """
    if not (keep or is_sharded(module)):
        return {}
    gathered = ((name, _gathered(value.detach(), keep)) for name, value in module.named_parameters())
    return {name: value for name, value in gathered if value is not None}


def take(module: nn.Module, optimiser: torch.optim.Optimizer, keep: bool) -> Tensors:
    """Return parameters and optimiser as ``parameters_of`` does; the format is the same, shared out or not."""
    if not (keep or is_sharded(module)):
        return {}
    stored = optimiser.state_dict()
    if is_sharded(module):
        stored["state"] = {
            number: {name: _gathered(value, keep) if isinstance(value, Tensor) else value for name, value in of.items()}
            for number, of in stored["state"].items()
        }
    return {"parameters": parameters_of(module, keep), "optimiser": stored}


@torch.no_grad()
def put(tensors: Tensors, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Copy what ``take`` returned into a model and an optimiser of the same shapes, however they are shared out."""
    for name, parameter in module.named_parameters():
        parameter.copy_(share_like(tensors["parameters"][name], parameter))
    stored = tensors["optimiser"]
    if is_sharded(module):
        trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        state = {
            number: {
                name: share_like(value, trained[number]) if value.shape == trained[number].shape else value
                for name, value in of.items()
            }
            for number, of in stored["state"].items()
        }
        stored = {**stored, "state": state}
    optimiser.load_state_dict(stored)


def _gathered(tensor: Tensor, keep: bool) -> Tensor | None:
    found = whole(tensor)
    if found is tensor:
        return tensor
    return found.cpu() if keep else None
