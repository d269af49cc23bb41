"""What a worker can compute in is asked before any work."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from mert_core.errors import MertError
from mert_core.training import worker as worker_module
from mert_core.training.callbacks import SilentObserver
from mert_core.training.run import Job, work
from mert_core.training.worker import Worker, choose_precision
from tests.training.music import params


def test_a_run_in_bf16_is_refused_where_products_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    open_inputs = Mock()
    with pytest.raises(MertError, match=r"no bf16 instructions .* Use precision: fp32"):
        work(Job(params(precision="bf16"), open_inputs, 7, 1, None, None), Worker(), SilentObserver())
    assert not open_inputs.called
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_auto_is_bf16_on_a_gpu_that_has_it_and_fp32_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    monkeypatch.setattr(worker_module, "multiplies_bf16", lambda device: True)
    assert choose_precision("auto", torch.device("cuda")) == "bf16"
    assert choose_precision("auto", torch.device("cpu")) == "fp32", "a processor gains nothing by it"
