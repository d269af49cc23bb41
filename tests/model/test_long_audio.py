"""A song in chunks: convolutions as of the whole song, attention within the chunk, memory of one chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.model.long_audio import song_states
from mert_core.model.mert import MertModel
from tests.model.test_hubert_parity import SMALL

SECOND = 24000


def song(seconds: float) -> Tensor:
    """Return (1, samples) of noise that grows from silence to full scale, so that no chunk is like the whole."""
    noise = torch.randn(1, int(seconds * SECOND), generator=torch.Generator().manual_seed(4))
    return noise * torch.linspace(0, 0.5, noise.shape[-1]) ** 2


def joined(model: MertModel, waveform: Tensor, chunk: float, margin: float) -> list[Tensor]:
    pieces: list[tuple[Tensor, ...]] = []
    frames = 0
    for first, states in song_states(model, waveform, chunk, margin):
        assert first == frames
        frames += len(states[0])
        pieces.append(states)
    assert frames == model.config.frames(waveform.shape[-1])
    return [torch.cat(states) for states in zip(*pieces, strict=True)]


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative L2 distance over the whole song."""
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("cqt", [False, True])
def test_the_front_end_is_exact_and_attention_is_close(pre_norm: bool, cqt: bool) -> None:
    model = MertModel(replace(SMALL, do_stable_layer_norm=pre_norm, feature_extractor_cqt=cqt), seed=2).eval()
    waveform = song(14.3)
    with torch.no_grad():
        whole = [state[0] for state in model(waveform).hidden_states]
    found = joined(model, waveform, 5.0, 1.0)
    # state 0 is behind the convolutions, the first norm, the CQT and the position convolution
    torch.testing.assert_close(found[0], whole[0], atol=5e-3 if cqt else 1e-4, rtol=0)
    assert max(distance(state, expected) for state, expected in zip(found, whole, strict=True)) < 0.05


def test_the_first_norm_needs_the_whole_song() -> None:
    model = MertModel(SMALL, seed=2).eval()
    waveform = song(14.3)
    with torch.no_grad():
        expected = model.feature_extractor(waveform)
        moments = model.feature_extractor.moments(waveform, block_samples=7000)
        piece = waveform[:, 300 * 320 : 399 * 320 + 400]
        torch.testing.assert_close(
            model.feature_extractor(piece, moments=moments), expected[:, 300:400], atol=1e-4, rtol=0
        )
        assert distance(model.feature_extractor(piece), expected[:, 300:400]) > 0.1


def test_longer_chunks_come_closer() -> None:
    model = MertModel(replace(SMALL, do_stable_layer_norm=True), seed=2).eval()
    attention = model.encoder.layers[0].attention
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.mul_(20)  # fresh weights attend to everything alike; trained ones do not
        waveform = song(14.3)
        whole = model(waveform).last_hidden_state[0]
        far, near = (distance(joined(model, waveform, chunk, 0.5)[-1], whole) for chunk in (2.0, 8.0))
    assert 0 < near < 0.7 * far


def test_what_fits_into_one_chunk_is_the_whole_result() -> None:
    model = MertModel(SMALL, seed=2).eval()
    waveform = song(2.0)
    with torch.no_grad():
        for state, expected in zip(joined(model, waveform, 2.0, 0.5), model(waveform).hidden_states, strict=True):
            assert torch.equal(state, expected[0])


def test_no_convolution_sees_more_than_a_piece() -> None:
    model = MertModel(SMALL, seed=2).eval()
    seen: list[int] = []
    first = model.feature_extractor.conv_layers[0]
    first.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[-1]))
    attended: list[int] = []
    model.encoder.layers[0].register_forward_hook(lambda _m, given, _o: attended.append(given[0].shape[1]))
    joined(model, song(60.0), 4.0, 0.5)
    assert max(seen) <= 1 << 18 and max(attended) == 300


@pytest.mark.parametrize(("chunk", "margin"), [(2.0, 1.0), (1.0, 2.0), (2.0, -1.0)])
def test_impossible_chunks_are_refused(chunk: float, margin: float) -> None:
    with pytest.raises(MertError, match="less than half a chunk"):
        list(song_states(MertModel(SMALL).eval(), song(3.0), chunk, margin))
