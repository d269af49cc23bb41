"""The student is transformers' HubertModel, state for state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mert_core.errors import MertError
from mert_core.model import PRESETS, MertConfig, MertModel, export_hubert

SMALL = MertConfig(
    hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, do_stable_layer_norm=False,
    conv_dim=(24,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
)  # fmt: skip


@pytest.mark.parametrize("pre_norm", [False, True])
def test_every_state_equals_hubert(tmp_path: Path, pre_norm: bool) -> None:
    from transformers import HubertModel

    ours = MertModel(replace(SMALL, do_stable_layer_norm=pre_norm), seed=3).eval()
    with torch.no_grad():
        ours.encoder.pos_conv_embed.conv.weight_g.mul_(1.7)  # a gain that is not the norm, else a lost gain goes unseen
    export_hubert(ours, tmp_path / "out")
    theirs, loading = HubertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    for samples in (400, 1999, 8001, 24000):
        waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
        with torch.no_grad():
            mine, reference = ours(waveform), theirs.eval()(waveform, output_hidden_states=True)
        assert len(mine.hidden_states) == 4
        for state, expected in zip(mine.hidden_states[:-1], reference.hidden_states[:-1], strict=True):
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.last_hidden_state, reference.last_hidden_state, atol=1e-4, rtol=1e-4)


def test_export_in_train_mode_masks_nothing(tmp_path: Path) -> None:
    from transformers import HubertModel

    export_hubert(MertModel(SMALL), tmp_path / "out")
    theirs = HubertModel.from_pretrained(tmp_path / "out").train()
    waveform = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(theirs(waveform).last_hidden_state, theirs(waveform).last_hidden_state)


def test_cqt_input_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="feature_extractor_cqt"):
        export_hubert(MertModel(replace(SMALL, feature_extractor_cqt=True)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "parameters"), [("mert-95m", 94_371_712), ("mert-330m", 315_428_992)])
def test_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert MertModel(PRESETS[name]).parameter_count() == parameters


def test_tiny_is_tiny() -> None:
    assert 1_500_000 < MertModel.from_preset("mert-tiny").parameter_count() < 2_500_000


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (24000, 74), (120000, 374), (122880, 383), (720000, 2249)])
def test_frames(samples: int, frames: int) -> None:
    assert PRESETS["mert-95m"].frames(samples) == frames
