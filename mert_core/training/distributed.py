"""One objective on many workers: replicated on each (DDP), or shared out among them (FSDP2)."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from mert_core.errors import MertError
from mert_core.training.loss import Objective
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator


def replicate(objective: Objective, worker: Worker) -> nn.Module:
    """Return the objective as each worker calls it, with a copy on every worker; alone, it is the objective itself."""
    objective.to(worker.device)
    if worker.world == 1:
        return objective
    return DistributedDataParallel(
        objective,
        device_ids=[worker.device] if worker.device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # else the buckets cost another copy of all gradients
        find_unused_parameters=objective.encoder.config.layerdrop > 0,
        broadcast_buffers=False,
    )


def shard(objective: Objective, worker: Worker) -> nn.Module:
    """Share the objective's parameters out, in place, and with them gradients and what an optimizer keeps of each.

    A worker gathers the parameters of one encoder layer at a time, and those outside of the layers for a whole pass.
    All workers must then call the objective, or one of its methods that run the encoder, equally often.

    Raises:
        MertError: there is one worker alone.
    """
    if worker.world == 1:
        raise MertError(
            "pretrain.sharding is full, but the run has one worker (pretrain.workers is 0 or 1); expected "
            "two or more, to share the model out among. Raise pretrain.workers, or set pretrain.sharding: none."
        )
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)  # what FSDP takes for the mesh's device
    mesh = init_device_mesh(worker.device.type, (worker.world,))
    # Parameters are resharded after each forward pass, the root's too: else they would be whole after one without a
    # backward pass, and resume states would be read into the wrong tensors.
    for part in (*objective.encoder.encoder.layers, objective):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for method in ("masked_codes", "guessed_spectra"):
        register_fsdp_forward_method(objective, method)
    return objective


def is_sharded(module: nn.Module) -> bool:
    """Return whether ``shard`` was applied."""
    return isinstance(module, FSDPModule)


def no_sync(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Leave gradients where they were computed, but for the last micro-batch of an update."""
    if isinstance(module, FSDPModule):
        return _sharded_no_sync(module, last)
    return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()


@contextmanager
def _sharded_no_sync(module: FSDPModule, last: bool) -> Iterator[None]:
    module.set_requires_gradient_sync(last)
    yield


def clip_gradients(module: nn.Module, limit: float) -> float:
    """Clip all gradients' common norm and return what it was before."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
    return whole(norm).item()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor itself or, if it is shared out, the whole of it; then all workers must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this worker's share of a whole tensor, if ``like`` is shared out; without communication."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
