"""A worker's place among the workers of one training run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Worker:
    """Rank, number of workers and device of one worker; the default is a run without others."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this worker writes and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all workers, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def maximum(self, value: float) -> float:
        """Return the largest of all workers' values."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
        return shared.item()

    def wait(self) -> None:
        """Wait for all workers."""
        if self.world > 1:
            distributed.barrier()


def choose_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``."""
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")
