"""A worker of one training run: its rank among the others, its device, and what that can compute in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, distributed

from mert_core.errors import MertError
from mert_core.parallel import choose_device


@dataclass(frozen=True)
class Worker:
    """Rank, number of workers and device of one worker; the default is a run without others."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def alone(cls, wanted: str) -> Self:
        """Return the only worker of a run, on this process's device.

        Args:
            wanted: ``auto``, ``cpu`` or ``cuda``.

        Raises:
            MertError: cuda is wanted, but torch finds no GPU.
        """
        return cls(device=torch.device(choose_device(wanted)))

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


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bf16 numbers."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the precision of a run on a device: ``fp32`` or ``bf16``.

    Args:
        wanted: ``fp32``, ``bf16``, or ``auto``: bf16 on a GPU that has instructions for it, fp32 elsewhere.
        device: where the run computes.

    Raises:
        MertError: bf16 is wanted on a device that would only emulate it, several times slower than fp32.
    """
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and multiplies_bf16(device) else "fp32"
    if wanted == "bf16" and not multiplies_bf16(device):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
        raise MertError(
            f"the precision is bf16, but {name} has no bf16 instructions (on a processor AVX512-BF16 or AMX; on a GPU "
            "compute capability 8.0). Use precision: fp32 or auto, or a processor or GPU with bf16."
        )
    return wanted
