"""Matrix products of bf16 numbers on processors that have no instructions for them.

torch emulates such products there, three to four times slower than in fp32. The instructions multiply bf16 numbers
exactly, add up in fp32 and round the sum to bf16; fp32 products of the same numbers do just that.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_PURE = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default}
_WRITING = {_ATEN.mm.out: _ATEN.mm.default, _ATEN.addmm.out: _ATEN.addmm.default}  # into `out`


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16 products."""
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Bf16Products(TorchDispatchMode):
    """Within it, products of bf16 matrices on a CPU are taken in fp32 and rounded once; forward and backward."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not (func in _PURE or func in _WRITING) or not _is_bf16(args[-1]):
            return func(*args, **kwargs)
        wide = [value.float() if _is_bf16(value) else value for value in args]
        if func in _PURE:
            return func(*wide, **kwargs).bfloat16()
        out = kwargs.pop("out")
        return out.copy_(_WRITING[func](*wide, **kwargs))


def _is_bf16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16 and value.device.type == "cpu"


def bf16_products(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return what forward and backward are to run in: ``Bf16Products`` where bf16 is asked for and not built in."""
    return Bf16Products() if precision == "bf16" and not multiplies_bf16(device) else nullcontext()
