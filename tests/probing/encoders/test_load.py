from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
import transformers
from safetensors.torch import load_file, save_file

from mert_core.errors import MertError
from mert_core.model.config import preset
from mert_core.model.mert import MertModel
from mert_core.probing.embeddings import embeddings
from mert_core.probing.encoders.base import ModelEncoder, fingerprint
from mert_core.probing.encoders.load import open_encoder
from mert_core.probing.tasks import Chunking
from tests.probing.sounds import Noise

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.65,
    "mask_time_length": 2,
    "hidden_dropout": 0.5,
    "layerdrop": 0.5,
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hubert": ("HubertConfig", "HubertModel", {}),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForPreTraining", {"codevector_dim": 16, "proj_codevector_dim": 16}),
    "wav2vec2-large": ("Wav2Vec2Config", "Wav2Vec2Model", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "data2vec-audio": ("Data2VecAudioConfig", "Data2VecAudioModel", {}),
}


def music(seconds: float = 0.6, below_hertz: float | None = 7000.0) -> torch.Tensor:
    """Noise, without what 16 kHz cannot hold."""
    drawn = np.random.default_rng(0).normal(0.02, 0.1, (2, round(24000 * seconds)))
    if below_hertz is not None:
        spectrum = np.fft.rfft(drawn)
        spectrum[:, np.fft.rfftfreq(drawn.shape[1], 1 / 24000) > below_hertz] = 0
        drawn = np.fft.irfft(spectrum, drawn.shape[1])
    return torch.from_numpy(drawn.astype(np.float32))


def write(folder: Path, kind: str, normalize: bool | None = True) -> transformers.PreTrainedModel:
    configuration, model_class, more = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = getattr(transformers, model_class)(getattr(transformers, configuration)(**SHAPE, **more))
    model.save_pretrained(folder)
    if normalize is not None:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, sampling_rate=16000).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("normalize", [True, False, None])
def test_a_transformers_folder_answers_as_transformers_does(tmp_path: Path, kind: str, normalize: bool | None) -> None:
    model = write(tmp_path, kind, normalize)
    encoder = open_encoder(str(tmp_path))
    waveform = music()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize is not False, sampling_rate=16000)
    at_16_khz = [soxr.resample(row, 24000, 16000, quality="VHQ") for row in waveform.numpy()]
    values = extractor(at_16_khz, sampling_rate=16000, return_tensors="pt").input_values
    base = getattr(model, "wav2vec2", model)
    with torch.no_grad():
        expected = torch.stack(base(values, output_hidden_states=True).hidden_states)
    assert (encoder.states, encoder.width, encoder.frame_rate) == (3, 32, 50.0)
    found = encoder.frames(waveform)
    assert found.shape == (3, 2, 29, 32)
    # The first norm's statistics run over the window, whose ends two resamplers round off differently.
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)
    torch.testing.assert_close(encoder.pooled(waveform), found.mean(dim=2))
    assert torch.equal(encoder.frames(waveform), found), "nothing is masked or dropped"
    assert not found.requires_grad
    assert encoder.frames(torch.zeros_like(waveform)).isfinite().all(), "silence stays silence"


def test_normalization_is_heard_and_in_the_fingerprint(tmp_path: Path) -> None:
    encoders = []
    for name, normalize in (("yes", True), ("no", False)):
        write(tmp_path / name, "wav2vec2-large", normalize)
        encoders.append(open_encoder(str(tmp_path / name)))
    yes, no = encoders
    assert not torch.allclose(yes.pooled(music()), no.pooled(music()), atol=1e-2)
    assert fingerprint(yes) != fingerprint(no) == fingerprint(open_encoder(str(tmp_path / "no")))


def test_weights_that_do_not_fit_are_not_made_up(tmp_path: Path) -> None:
    write(tmp_path, "hubert")
    path, name = tmp_path / "model.safetensors", "encoder.layers.1.attention.k_proj.weight"
    weights = load_file(path)
    lost = weights.pop(name)
    for changed, message in (
        (weights, r"1 tensor\(s\): missing: encoder\.layers\.1\.attention\.k_proj\.weight"),
        (weights | {name: lost[:-1]}, r"misshapen: encoder\..*k_proj\.weight \(31, 32\), expected \(32, 32\)"),
    ):
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(MertError, match=message):
            open_encoder(str(tmp_path))
    path.unlink()
    with pytest.raises(MertError, match="transformers cannot load"):
        open_encoder(str(tmp_path))


def test_without_transformers_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "hubert")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MertError, match="pip install transformers"):
        open_encoder(str(tmp_path))


def test_mert_folders_of_ours_exported_and_published(tmp_path: Path) -> None:
    model = MertModel(replace(preset("mert-tiny"), feature_extractor_cqt=False), seed=2).eval()
    waveform = music(0.4, None)
    expected = ModelEncoder(model).frames(waveform)
    model.save_pretrained(tmp_path / "ours")
    model.export_hubert(tmp_path / "exported")
    published = Path(shutil.copytree(tmp_path / "exported", tmp_path / "published"))
    for name, changes in (
        ("config.json", {"model_type": "mert_model", "sample_rate": 24000, "attention_relax": -1.0}),
        ("preprocessor_config.json", {"do_normalize": True}),
    ):
        (published / name).write_text(json.dumps(json.loads((published / name).read_text()) | changes))
    torch.save(load_file(published / "model.safetensors"), published / "pytorch_model.bin")
    (published / "model.safetensors").unlink()
    for name in ("ours", "exported", "published"):
        encoder = open_encoder(str(tmp_path / name))
        assert isinstance(encoder, ModelEncoder)
        assert encoder.frame_rate == 75.0
        assert torch.equal(encoder.frames(waveform), expected), "MERT hears the waveform as it is"
        assert fingerprint(encoder) == fingerprint(ModelEncoder(model))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has no config\.json"),
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ("{}", "has no model_type"),
        ('{"model_type": "bert"}', "describes a 'bert'; expected mert_model, hubert, wav2vec2"),
        ('{"model_type": "hubert", "sample_rate": "high"}', "sample rate of 'high'"),
        ('{"model_type": "mert_model", "sample_rate": 16000}', "MERT for 16000 Hz; expected 24000"),
    ],
)
def test_folders_that_are_no_encoder(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(MertError, match=message):
        open_encoder(str(tmp_path))


def test_what_is_no_folder_is_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in (("nothing", "does not exist; expected a folder"), ("file", "is a file")):
        with pytest.raises(MertError, match=message):
            open_encoder(str(tmp_path / name))


CALLABLES = """
import numpy as np
import torch


def answering(answer, **attributes):
    def encoder(waveform):
        return answer(waveform)

    vars(encoder).update(attributes)
    return lambda: encoder


def windows(size, hop, width=4, **attributes):
    return answering(lambda waveform: waveform.unfold(1, size, hop)[..., :width], **attributes)


def both_signs(waveform):
    pieces = waveform.unfold(1, 600, 300)[..., :5].numpy()
    return np.stack([pieces, -pieces])


class Module(torch.nn.Module):
    sample_rate = 8000

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv1d(1, 4, 160, 160)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, waveform):
        return self.dropout(self.layer(waveform[:, None])).transpose(1, 2)


def with_arguments(size):
    return None


one_state = windows(480, 480, 8)
two_states = answering(both_signs, name="double", frame_rate=80, thread_safe=True)
hop_512, hop_441, hop_317 = windows(1024, 512), windows(441, 441), windows(2048, 317)
resampled = windows(512, 512, sample_rate=22050)
constant = answering(lambda waveform: torch.ones(len(waveform), 3, 4))
flat = answering(lambda waveform: waveform)
listing = answering(lambda waveform: waveform.tolist())
another_batch = answering(lambda waveform: torch.ones(1, len(waveform) + 1, 3, 4))
number = lambda: 3
value = 3
"""


@pytest.fixture
def callables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_encoders_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CALLABLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_callable_answers_with_tensors_or_arrays_and_says_what_it_is(callables: str, tmp_path: Path) -> None:
    one, two = open_encoder(f"{callables}:one_state"), open_encoder(f"{callables}:two_states")
    assert (one.states, one.width, one.frame_rate) == (1, 8, 50.0)
    assert (two.states, two.width, two.frame_rate) == (2, 5, 80.0)
    assert [one.describe()["encoder"], two.describe()["encoder"]] == [f"{callables}:one_state", "double"]
    waveform = music(0.5)
    expected = waveform.unfold(1, 480, 480)[..., :8]
    assert torch.equal(one.frames(waveform)[0], expected)
    torch.testing.assert_close(one.pooled(waveform)[0], expected.mean(dim=1))
    frames = two.frames(waveform)
    assert torch.equal(frames[0], -frames[1])
    found = embeddings(one, [Noise(number, 0.2) for number in range(40)], Chunking(), "frames", tmp_path)
    assert found.offsets[-1] == 400


def test_a_module_gets_its_own_rate_and_drops_nothing(callables: str) -> None:
    encoder = open_encoder(f"{callables}:Module")
    assert (encoder.states, encoder.width, encoder.frame_rate) == (1, 4, 50.0)
    waveform = music(0.5, 3000.0)
    assert torch.equal(encoder.pooled(waveform), encoder.pooled(waveform))
    assert not encoder.frames(waveform).requires_grad
    module = encoder.function  # type: ignore[attr-defined]
    expected = module(torch.from_numpy(soxr.resample(waveform.numpy().T, 24000, 8000).T.copy()))
    torch.testing.assert_close(encoder.frames(waveform)[0, :, 3:-3], expected[:, 3:-3], atol=1e-3, rtol=0)
    assert fingerprint(open_encoder(f"{callables}:Module")) == fingerprint(encoder)
    assert "weights" in encoder.describe()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"answers a waveform \(2, 24000\) with the shape \(2, 24000\); expected a tensor \(batch, frames"),
        ("listing", "with a list; expected"),
        ("another_batch", "with a batch of 2"),
        ("number", "returned a int; expected something to call"),
        ("with_arguments", r"takes \(size\); expected a function without arguments"),
        ("value", "'value' is a int"),
        ("nothing", "'nothing' does not exist"),
        ("", "names no callable"),
        ("no_such_module_of_mine:encoder", "cannot import 'no_such_module_of_mine'"),
    ],
)
def test_callables_that_are_no_encoder(callables: str, name: str, message: str) -> None:
    with pytest.raises(MertError, match=message):
        open_encoder(name if ":" in name else f"{callables}:{name}")


def test_the_frame_rate_is_exact_where_a_hop_does_not_divide_the_second(callables: str) -> None:
    for hop in (512, 441, 317):
        assert open_encoder(f"{callables}:hop_{hop}").frame_rate == pytest.approx(24000 / hop, rel=1e-9)
    assert open_encoder(f"{callables}:resampled").frame_rate == pytest.approx(22050 / 512, rel=1e-4)
    constant = open_encoder(f"{callables}:constant")  # whose frames do not grow: it answers clips alone
    assert constant.pooled(music(0.5)).shape == (1, len(music(0.5)), 4)
    with pytest.raises(MertError, match="5 s with as many frames as 1 s"):
        _ = constant.frame_rate
