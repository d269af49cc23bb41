from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

from mert_core.config import MEL_STATISTICS, RANDOM_WEIGHTS, Config
from mert_core.errors import MertError
from mert_core.model.config import preset
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.probing.encoders import base
from mert_core.probing.encoders.base import MelStatistics, ModelEncoder, fingerprint
from mert_core.probing.encoders.load import load_encoder


@pytest.fixture(scope="module")
def tiny() -> MertModel:
    return MertModel.from_preset("mert-tiny", seed=3)


def noise(seconds: float, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, round(24000 * seconds), generator=generator) * 0.1


def test_hidden_states_of_the_model_and_their_means(tiny: MertModel) -> None:
    encoder = ModelEncoder(tiny)
    waveform = noise(0.5)
    expected = torch.stack(tiny(waveform).hidden_states)
    assert (encoder.states, encoder.width, encoder.frame_rate) == (len(expected), expected.shape[-1], 75.0)
    frames = encoder.frames(waveform)
    assert torch.equal(frames, expected)
    assert not frames.requires_grad
    torch.testing.assert_close(encoder.pooled(waveform), expected.mean(dim=2))


def test_nothing_is_dropped_or_masked() -> None:
    model = MertModel(replace(preset("mert-tiny"), hidden_dropout=0.5, layerdrop=0.5, attention_dropout=0.5)).train()
    encoder = ModelEncoder(model)
    assert torch.equal(encoder.pooled(noise(0.3)), encoder.pooled(noise(0.3)))


def test_a_long_window_is_computed_as_a_song_is(tiny: MertModel, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform, encoder = noise(1.2), ModelEncoder(tiny)
    whole = encoder.frames(waveform)
    monkeypatch.setattr(base, "WHOLE_SECONDS", 1.0)
    torch.testing.assert_close(encoder.frames(waveform), whole)


def test_mel_statistics_are_those_of_torchaudio() -> None:
    encoder = MelStatistics(bins=20)
    waveform = noise(0.6)
    mel = torchaudio.transforms.MelSpectrogram(24000, n_fft=2048, hop_length=320, n_mels=20)
    levels = torch.log(mel(waveform) + 1e-5)
    pooled = encoder.pooled(waveform)
    assert pooled.shape == (1, 2, encoder.width) == (1, 2, 40)
    np.testing.assert_allclose(pooled[0, :, :20], levels.mean(dim=-1), rtol=1e-5)
    np.testing.assert_allclose(pooled[0, :, 20:], levels.numpy().std(axis=-1), rtol=1e-4)
    frames = encoder.frames(waveform)
    assert frames.shape == (1, 2, 44, 20), "as many as the student makes of 14,400 samples"
    assert torch.equal(frames[0], levels.transpose(1, 2)[:, :44])


def test_the_fingerprint_is_of_the_weights_and_the_code_not_of_threads(tiny: MertModel) -> None:
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.add(fingerprint(ModelEncoder(tiny)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    other_code = ModelEncoder(tiny)
    other_code.frames = lambda waveform: ModelEncoder.frames(other_code, waveform) * 1.001  # type: ignore[method-assign]
    others = [
        ModelEncoder(MertModel.from_preset("mert-tiny", seed=4)),
        MelStatistics(20),
        MelStatistics(21),
        other_code,
    ]
    assert len({fingerprint(encoder) for encoder in others} | found) == 5


def test_runs_and_floors_by_name(config: Config, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    baseline = load_encoder(config, layout, RANDOM_WEIGHTS)
    assert isinstance(baseline, ModelEncoder)
    assert isinstance(load_encoder(config, layout, MEL_STATISTICS), MelStatistics)
    run = config.probe.baseline_run
    with pytest.raises(MertError, match=r"config\.json"):
        load_encoder(config, layout, run)
    layout.model(run).mkdir(parents=True)
    MertModel.from_preset(config.run(run).model.preset, seed=99).save_pretrained(layout.model(run))
    trained = load_encoder(config, layout, run)
    assert not torch.equal(trained.pooled(noise(0.2)), baseline.pooled(noise(0.2)))
