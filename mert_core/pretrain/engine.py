"""How a run's objective is executed: precision, recomputation, compilation, random draws, and many workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from mert_core.pretrain.batch import Batch
from mert_core.pretrain.objective import Losses, Objective
from mert_core.pretrain.parallel import clip_gradients, is_sharded, no_sync, replicate, shard
from mert_core.pretrain.place import Place
from mert_core.pretrain.precision import bf16_products

if TYPE_CHECKING:
    from mert_core.config import Pretrain


OPTIONS = ("activation_checkpointing", "compile", "sharding")
"""Parameters that change how a run is executed, but not its states' format nor, except for rounding, its result."""


class Engine:
    """Prepares an objective for a place, in place, and runs it there. An optimiser must be built afterwards.

    Args:
        params: of the run.
        objective: on the CPU, the same on every worker.
        place: of this worker.

    Raises:
        MertError: the objective is to be sharded, but there is one worker alone.
    """

    def __init__(self, params: Pretrain, objective: Objective, place: Place) -> None:
        self._params, self._objective, self._place = params, objective, place
        encoder = objective.encoder
        encoder.feature_extractor.recompute = encoder.encoder.recompute = params.activation_checkpointing
        if params.compile:
            # The layers alone: they have one shape, so that one graph serves all of them, and layer drop, the choice
            # of masked frames and the CQT stay outside.
            for layer in encoder.encoder.layers:
                layer.compile(dynamic=False)
        spread = {"none": replicate, "full": shard}[params.sharding]
        self._module = spread(objective, place)

    def losses(self, batch: Batch) -> Losses:
        """Return a micro-batch's losses, computed in the run's precision."""
        with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._params.precision == "bf16"):
            return self._module(batch)

    def no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Keep gradients on their worker, but for the last micro-batch of an update."""
        return no_sync(self._module, last)

    def clip(self) -> float:
        """Clip the gradients, and return their norm before that."""
        return clip_gradients(self._objective, self._params.clip_norm)

    @contextmanager
    def update(self, seed: int, step: int) -> Iterator[None]:
        """Return what forward and backward passes of an update run in.

        Dropout and layer drop become a function of (seed, step, rank), so that resuming needs no generator state.
        Sharded layers are run by all workers or by none: then all of them draw the first one's layer drop.
        """
        device, encoder = self._place.device, self._objective.encoder.encoder
        if is_sharded(self._module):
            encoder.draws = torch.Generator().manual_seed(_number(seed, step, 0))
        # compiled layers bring their own products
        products = nullcontext() if self._params.compile else bf16_products(self._params.precision, device)
        with products, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_number(seed, step, self._place.rank))
            yield


def _number(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])
