"""One objective on many workers: replicated on each (DDP), or shared out among them (FSDP2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from mert_core.errors import MertError
from mert_core.training.loss import Losses, Objective
from mert_core.training.targets import Batch
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig

OPTIONS = ("activation_checkpointing", "compile", "sharding")
"""Parameters that change how a run is executed, but not its states' format nor, except for rounding, its result."""


class Engine:
    """Prepares an objective for a worker, in place, and runs it there. An optimizer must be built afterwards.

    Args:
        params: precision, ``OPTIONS`` and the gradients' largest norm.
        objective: student and heads on the CPU, the same on every worker.
        worker: rank and device of this process.

    Raises:
        MertError: the objective is to be sharded, but there is one worker alone.
    """

    def __init__(self, params: PretrainConfig, objective: Objective, worker: Worker) -> None:
        self._params, self._objective, self._worker = params, objective, worker
        encoder = objective.encoder
        encoder.feature_extractor.recompute = encoder.encoder.recompute = params.activation_checkpointing
        if params.compile:
            # The layers alone: they have one shape, so that one graph serves all of them, and layer drop, the choice
            # of masked frames and the CQT stay outside.
            for layer in encoder.encoder.layers:
                layer.compile(dynamic=False)
        self._module = {"none": _replicate, "full": _shard}[params.sharding](objective, worker)

    def losses(self, batch: Batch, targets: dict[str, Tensor]) -> Losses:
        """Return a micro-batch's losses, computed in the run's precision."""
        with torch.autocast(self._worker.device.type, torch.bfloat16, enabled=self._params.precision == "bf16"):
            return self._module(batch, targets)

    def no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Leave gradients where they are computed, but for the last micro-batch of an update."""
        if isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(last)
        elif isinstance(self._module, DistributedDataParallel) and not last:
            return self._module.no_sync()
        return nullcontext()

    def clip(self) -> float:
        """Clip all gradients' common norm and return what it was before."""
        return whole(nn.utils.clip_grad_norm_(self._objective.parameters(), self._params.clip_norm)).item()

    @contextmanager
    def update(self, seed: int, step: int) -> Iterator[None]:
        """Return what forward and backward passes of an update run in.

        Dropout and layer drop become a function of (seed, step, rank), so that resuming needs no generator state.
        Sharded layers are run by all workers or by none: then all of them draw the first one's layer drop.
        """

        def number(rank: int) -> int:
            return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])

        device = self._worker.device
        if is_sharded(self._module):
            self._objective.encoder.encoder.draws = torch.Generator().manual_seed(number(0))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(number(self._worker.rank))
            yield


def _replicate(objective: Objective, worker: Worker) -> nn.Module:
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


def _shard(objective: Objective, worker: Worker) -> nn.Module:
    """Share the objective's parameters out, in place, and with them gradients and what an optimizer keeps of each.

    A worker gathers the parameters of one encoder layer at a time, and those outside of the layers for a whole pass.
    All workers must then call the objective, or one of its methods that run the encoder, equally often.
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
    """Return whether a module's parameters are shared out among the workers."""
    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor itself or, if it is shared out, the whole of it; then all workers must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this worker's share of a whole tensor, if ``like`` is shared out; without communication."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
