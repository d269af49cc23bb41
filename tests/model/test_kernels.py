"""One switch says whether a processor's own forms or torch's are used; both give the same."""

from __future__ import annotations

import pytest
import torch

from mert_core.model import kernels, layers
from mert_core.model.config import PRESETS
from mert_core.model.mert import MertModel


@pytest.mark.parametrize("preset", ["mert-tiny", "mert-95m"])
def test_torchs_own_forms_give_the_same_states_and_gradients(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, waveform = MertModel(PRESETS[preset]).eval(), torch.randn(2, 8000)
    found = []
    for own in (True, False):
        if not own:
            for module in (kernels, layers):
                monkeypatch.setattr(module, "own_kernels", lambda values: False)
            monkeypatch.setattr(kernels._StridedConv, "apply", lambda *given: pytest.fail("own form, but switched off"))
            monkeypatch.setattr(layers, "spectral_conv", lambda *given: pytest.fail("own form, but switched off"))
        model.zero_grad()
        states = model(waveform).last_hidden_state
        (states * torch.randn(states.shape, generator=torch.Generator().manual_seed(1))).mean().backward()
        gradient = model.feature_extractor.conv_layers[2].conv.weight.grad
        assert gradient is not None
        found.append((states.detach(), gradient.clone()))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()


def test_the_switch_is_for_processors_outside_of_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.own_kernels(torch.zeros(1))
    assert not kernels.own_kernels(torch.zeros(1, device="meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not kernels.own_kernels(torch.zeros(1))
