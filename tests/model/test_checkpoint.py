"""Checkpoints: every spelling of the names loads, everything that does not fit is named, padding changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.model.mert import MertModel
from tests.model.test_hubert_parity import SMALL


def saved(folder: Path) -> dict[str, torch.Tensor]:
    MertModel(SMALL, seed=1).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    model = MertModel(replace(SMALL, feature_extractor_cqt=True), seed=1)
    for name in "ab":
        model.save_pretrained(tmp_path / name)
    loaded = MertModel.from_pretrained(tmp_path / "a")
    assert loaded.config == model.config and not loaded.training
    assert all(torch.equal(value, dict(model.named_parameters())[name]) for name, value in loaded.named_parameters())
    for file in ("config.json", "model.safetensors"):
        assert sha256_file(tmp_path / "a" / file) == sha256_file(tmp_path / "b" / file)


def test_published_key_names(tmp_path: Path) -> None:
    names = set(saved(tmp_path))
    assert {
        "masked_spec_embed",
        "feature_extractor.conv_layers.0.conv.weight",
        "feature_extractor.conv_layers.0.layer_norm.bias",
        "feature_projection.projection.weight",
        "encoder.pos_conv_embed.conv.weight_g",
        "encoder.layer_norm.weight",
        "encoder.layers.2.attention.k_proj.bias",
        "encoder.layers.0.feed_forward.intermediate_dense.weight",
        "encoder.layers.1.final_layer_norm.weight",
    } <= names
    # 211 tensors for 12 layers and 403 for 24: 19 beside the layers' 16 each
    assert len(names) == 19 + 16 * SMALL.num_hidden_layers


def parametrised(name: str) -> str:
    name = name.replace(".weight_g", ".parametrizations.weight.original0")
    return name.replace(".weight_v", ".parametrizations.weight.original1")


def fairseq(name: str) -> str:
    for ours, theirs in (
        ("masked_spec_embed", "mask_emb"),
        ("encoder.pos_conv_embed.conv", "encoder.pos_conv.0"),
        ("conv_layers.0.layer_norm", "conv_layers.0.2"),
        (".conv.weight", ".0.weight"),
        ("feature_projection.layer_norm", "layer_norm"),
        ("feature_projection.projection", "post_extract_proj"),
        (".feed_forward.intermediate_dense", ".fc1"),
        (".feed_forward.output_dense", ".fc2"),
    ):
        name = name.replace(ours, theirs)
    if name.startswith("encoder.layers."):
        if ".final_layer_norm" not in name:
            name = name.replace(".layer_norm", ".self_attn_layer_norm")
        name = name.replace(".attention.", ".self_attn.")
    return name


@pytest.mark.parametrize("spelling", [parametrised, fairseq, lambda name: f"hubert.{name}"])
def test_other_spellings_load_from_files_of_both_kinds(tmp_path: Path, spelling: Callable[[str], str]) -> None:
    tensors = saved(tmp_path)
    renamed = {spelling(name): value for name, value in tensors.items()}
    assert set(renamed) != set(tensors)
    save_file(renamed | {"label_embs_concat": torch.zeros(3)}, tmp_path / "model.safetensors")
    loaded = dict(MertModel.from_pretrained(tmp_path).named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    (tmp_path / "model.safetensors").unlink()
    torch.save(renamed, tmp_path / "pytorch_model.bin")
    assert torch.equal(MertModel.from_pretrained(tmp_path).masked_spec_embed, tensors["masked_spec_embed"])


def test_everything_that_does_not_fit_is_named(tmp_path: Path) -> None:
    tensors = saved(tmp_path)
    del tensors["encoder.pos_conv_embed.conv.weight_g"]
    tensors["encoder.layer_norm.weight"] = torch.zeros(7)
    tensors["rel_attn_embed"] = torch.zeros(2)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(MertError) as caught:
        MertModel.from_pretrained(tmp_path)
    text = str(caught.value)
    assert "missing: encoder.pos_conv_embed.conv.weight_g" in text and "unknown: rel_attn_embed" in text
    assert "misshapen: encoder.layer_norm.weight is (7,), expected (48,)" in text


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MertError, match=r"config\.json"):
        MertModel.from_pretrained(tmp_path)
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(MertError, match="damaged"):
        MertModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(MertError, match="holds neither"):
        MertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[1]", "holds a list"),
        (b"\xff\xfe{", "not JSON"),
        (b"{", "not JSON"),
        ({"hidden_size": "48"}, r"hidden_size='48' \(expected a whole number above 0\)"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
        ({"conv_dim": None}, r"conv_dim=None \(expected a list"),
        ({"conv_stride": [5, "2"]}, "conv_stride="),
        ({"do_stable_layer_norm": 1, "layerdrop": "no"}, "do_stable_layer_norm=1 .*layerdrop='no'"),
        ({"attention_relax": True}, "attention_relax=True"),
    ],
)
def test_an_impossible_configuration_is_an_error(tmp_path: Path, content: bytes | dict[str, Any], found: str) -> None:
    saved(tmp_path)
    path = tmp_path / "config.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text(encoding="utf-8")) | content).encode()
    path.write_bytes(content)
    with pytest.raises(MertError, match=rf"config\.json .*{found}"):
        MertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("changes", [{}, {"do_stable_layer_norm": True}, {"feature_extractor_cqt": True}])
def test_padding_changes_nothing(changes: dict[str, bool]) -> None:
    model = MertModel(replace(SMALL, **changes), seed=2).eval()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([24000, 9000, 16123])
    waveform = torch.randn(3, 24000, generator=generator)
    with torch.no_grad():
        batched = model(waveform, lengths)
        for row, samples in enumerate(lengths.tolist()):
            alone = model(waveform[row : row + 1, :samples])
            frames = model.config.frames(samples)
            for state, expected in zip(batched.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(state[row : row + 1, :frames], expected, atol=2e-5, rtol=1e-4)


def test_too_short_input_is_an_error() -> None:
    with pytest.raises(MertError, match="400 samples"):
        MertModel(SMALL)(torch.zeros(1, 399))


def test_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, second, other = MertModel(SMALL, seed=1), MertModel(SMALL, seed=1), MertModel(SMALL, seed=2)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(
        first.encoder.layers[0].attention.q_proj.weight, second.encoder.layers[0].attention.q_proj.weight
    )
    assert not torch.equal(first.masked_spec_embed, other.masked_spec_embed)
