"""The student is transformers' HubertModel, state for state."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mert_core.errors import MertError
from mert_core.model.config import PRESETS, MertConfig, hubert_fields
from mert_core.model.layers import relaxed_attention
from mert_core.model.mert import MertModel

SMALL = MertConfig(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    do_stable_layer_norm=False,
    conv_dim=(24,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)


# Narrow networks in both norms, and the published sizes: rounding adds up over 12 and 24 layers.
SHAPES = {
    "post": SMALL,
    "pre": replace(SMALL, do_stable_layer_norm=True),
    "95m": PRESETS["mert-95m"],
    "330m": PRESETS["mert-330m"],
}
NARROW_LENGTHS = (400, 1999, 8001, 12345, 24000)
FULL_LENGTHS = (8017, 24571)


@pytest.fixture(autouse=True)
def one_test_in_memory_at_a_time() -> Iterator[None]:
    yield
    gc.collect()  # transformers' models hold themselves in cycles


def assert_same_states(ours: MertModel, theirs: Any) -> None:
    for samples in NARROW_LENGTHS if ours.config.num_hidden_layers < 12 else FULL_LENGTHS:
        waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
        with torch.no_grad():
            mine, reference = ours.eval()(waveform), theirs.eval()(waveform, output_hidden_states=True)
        assert len(mine.hidden_states) == ours.config.num_hidden_layers + 1 == len(reference.hidden_states)
        # With pre-LN, transformers 5 records the last state before the final norm; up to 4 and here it is behind it.
        states = [*reference.hidden_states[:-1], reference.last_hidden_state]
        for state, expected in zip(mine.hidden_states, states, strict=True):
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=0)
        raw = reference.hidden_states[-1]
        with torch.no_grad():
            last = theirs.encoder.layer_norm(raw) if ours.config.do_stable_layer_norm else raw
        torch.testing.assert_close(mine.last_hidden_state, last, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_state_equals_hubert(tmp_path: Path, shape: str) -> None:
    from transformers import HubertModel

    ours = MertModel(SHAPES[shape], seed=3)
    with torch.no_grad():
        ours.encoder.pos_conv_embed.conv.weight_g.mul_(1.7)  # a gain that is not the norm, else a lost gain goes unseen
    ours.export_hubert(tmp_path / "out")
    theirs, loading = HubertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert_same_states(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_huberts_weights_give_the_same_states_here(tmp_path: Path, shape: str) -> None:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(1)
    fields = {name: value for name, value in hubert_fields(SHAPES[shape]).items() if name != "architectures"}
    theirs = HubertModel(HubertConfig(**fields))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.squeeze().ndim == 1:  # biases start at 0, norms at 1, gains as they must: mix-ups go unseen
                parameter.add_(torch.randn(parameter.shape) * 0.02)
    theirs.save_pretrained(tmp_path)
    ours = MertModel.from_pretrained(tmp_path)
    assert ours.config.do_stable_layer_norm == SHAPES[shape].do_stable_layer_norm
    assert_same_states(ours, theirs)


def test_relaxed_attention_gives_the_same_result() -> None:
    plain = MertModel(SMALL, seed=3).eval()
    relaxed = MertModel(replace(SMALL, attention_relax=32.0), seed=3).eval()
    waveform, lengths = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0)), torch.tensor([9000, 5000])
    with torch.no_grad():
        pairs = zip(plain(waveform, lengths).hidden_states, relaxed(waveform, lengths).hidden_states, strict=True)
        for state, expected in pairs:
            torch.testing.assert_close(state[0], expected[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(state[1, :15], expected[1, :15], atol=1e-5, rtol=0)


def test_relaxed_attention_with_dropout_is_right_on_average() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    keys = torch.tensor([True] * 5 + [False])[None, None, None]
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    mean = torch.stack([relaxed_attention(query, key, value, keys, 0.1, 32.0) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, exact, atol=0.05, rtol=0)


def test_relaxed_attention_keeps_scores_within_fp16() -> None:
    query = torch.full((1, 1, 2, 64), 120.0, dtype=torch.float16)  # a score of 115,200; fp16 ends at 65,504
    value = torch.tensor([1.0, 3.0], dtype=torch.float16)[None, None, :, None].expand(1, 1, 2, 64)
    assert ((query / 8) @ query.transpose(-1, -2)).isinf().all()
    assert torch.equal(relaxed_attention(query, query, value, None, 0.0, 32.0), torch.full_like(value, 2.0))


def test_deepnorm_equals_its_formula_and_is_for_post_norm_only(tmp_path: Path) -> None:
    shape = replace(SMALL, deepnorm=True)
    deep, plain = MertModel(shape, seed=3).eval(), MertModel(SMALL, seed=3).eval()
    alpha, beta = (2 * 3) ** 0.25, (8 * 3) ** -0.25
    layer, reference = deep.encoder.layers[1], plain.encoder.layers[1]
    for name in ("attention.v_proj", "attention.out_proj", "feed_forward.intermediate_dense"):
        expected = beta * reference.get_submodule(name).weight
        torch.testing.assert_close(layer.get_submodule(name).weight, expected)
    assert torch.equal(layer.attention.q_proj.weight, reference.attention.q_proj.weight)
    states = torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        middle = layer.layer_norm(alpha * states + layer.attention(states, None))
        expected = layer.final_layer_norm(alpha * middle + layer.feed_forward(middle))
        torch.testing.assert_close(layer(states, None), expected)
    with pytest.raises(MertError, match="post-LN"):
        replace(shape, do_stable_layer_norm=True)
    deep.save_pretrained(tmp_path)
    assert MertModel.from_pretrained(tmp_path).config == shape


def test_train_mode_masks_nothing_here_nor_in_transformers(tmp_path: Path) -> None:
    from transformers import HubertModel

    model = MertModel(SMALL, seed=3)
    model.export_hubert(tmp_path / "out")
    theirs = HubertModel.from_pretrained(tmp_path / "out").train()
    waveform = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.train()(waveform).last_hidden_state, model.eval()(waveform).last_hidden_state)
        assert torch.equal(theirs(waveform).last_hidden_state, theirs(waveform).last_hidden_state)


def test_export_says_how_to_prepare_music_and_replaces_only_checkpoints(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor

    MertModel(SMALL).export_hubert(tmp_path / "out", "# A card")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# A card"
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    waveform = np.linspace(-0.2, 0.7, 5000, dtype=np.float32)
    prepared = extractor(waveform, sampling_rate=24000, return_tensors="np")
    np.testing.assert_array_equal(prepared["input_values"][0], waveform)
    assert prepared["attention_mask"].shape == (1, 5000)
    MertModel(SMALL, seed=1).export_hubert(tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(MertError, match=r"thesis\.tex"):
        MertModel(SMALL).export_hubert(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.mark.parametrize("option", ["feature_extractor_cqt", "deepnorm"])
def test_what_hubert_has_not_cannot_be_exported(tmp_path: Path, option: str) -> None:
    with pytest.raises(MertError, match=option):
        MertModel(replace(SMALL, **{option: True})).export_hubert(tmp_path / "out")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_published_sizes_and_a_tiny_one() -> None:
    with torch.device("meta"):
        sizes = {name: MertModel(PRESETS[name]).parameter_count() for name in ("mert-95m", "mert-330m")}
    assert sizes == {"mert-95m": 94_371_712, "mert-330m": 315_428_992}
    assert 500_000 < MertModel.from_preset("mert-tiny").parameter_count() < 1_500_000
