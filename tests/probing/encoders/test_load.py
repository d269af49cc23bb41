from __future__ import annotations

import builtins
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
from mert_core.model.export import export_hubert
from mert_core.model.mert import MertModel
from mert_core.probing.embeddings import embeddings
from mert_core.probing.encoders.base import ModelEncoder, fingerprint, normalized
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


def write(
    folder: Path, kind: str, normalize: bool | None = True, rate: int | None = 16000
) -> transformers.PreTrainedModel:
    configuration, model_class, more = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = getattr(transformers, model_class)(getattr(transformers, configuration)(**SHAPE, **more))
    model.save_pretrained(folder)
    if normalize is not None:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, sampling_rate=16000).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("normalize", [True, False])
def test_a_transformers_folder_answers_as_transformers_does(tmp_path: Path, kind: str, normalize: bool) -> None:
    model = write(tmp_path / "model", kind, normalize)
    encoder = open_encoder(str(tmp_path / "model"))
    waveform = music()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "model")
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


def test_normalisation_is_what_the_folder_says_or_the_caller(tmp_path: Path) -> None:
    for name, normalize in (("yes", True), ("no", False), ("silent", None)):
        write(tmp_path / name, "wav2vec2-large", normalize)
    yes, no, silent = (open_encoder(str(tmp_path / name)) for name in ("yes", "no", "silent"))
    waveform = music()
    assert not torch.allclose(yes.pooled(waveform), no.pooled(waveform), atol=1e-2)
    assert torch.equal(silent.pooled(waveform), yes.pooled(waveform))
    forced = open_encoder(str(tmp_path / "no"), normalize=True)
    assert torch.equal(forced.pooled(waveform), yes.pooled(waveform))
    assert len({fingerprint(encoder) for encoder in (yes, no, forced)}) == 3
    assert fingerprint(open_encoder(str(tmp_path / "no"))) == fingerprint(no)


def test_weights_that_do_not_fit_are_not_made_up(tmp_path: Path) -> None:
    write(tmp_path, "hubert")
    weights = load_file(tmp_path / "model.safetensors")
    lost = weights.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MertError, match=r"1 tensor\(s\): missing: encoder\.layers\.1\.attention\.k_proj\.weight"):
        open_encoder(str(tmp_path))
    save_file(
        weights | {"encoder.layers.1.attention.k_proj.weight": lost[:-1]},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(MertError, match=r"misshapen: encoder\..*k_proj\.weight \(31, 32\), expected \(32, 32\)"):
        open_encoder(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MertError, match="transformers cannot load"):
        open_encoder(str(tmp_path))


def test_without_transformers_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "hubert")
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(MertError, match="pip install transformers"):
        open_encoder(str(tmp_path))


def test_mert_folders_of_ours_exported_and_published(tmp_path: Path) -> None:
    model = MertModel(replace(preset("mert-tiny"), feature_extractor_cqt=False), seed=2).eval()
    waveform = music(0.4, None)
    expected = ModelEncoder(model).frames(waveform)
    model.save_pretrained(tmp_path / "ours")
    export_hubert(model, tmp_path / "exported")
    shutil.copytree(tmp_path / "exported", tmp_path / "published")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    (tmp_path / "published" / "config.json").write_text(
        json.dumps(config | {"model_type": "mert_model", "sample_rate": 24000, "attention_relax": -1.0})
    )
    preprocessor = json.loads((tmp_path / "published" / "preprocessor_config.json").read_text())
    (tmp_path / "published" / "preprocessor_config.json").write_text(json.dumps(preprocessor | {"do_normalize": True}))
    weights = load_file(tmp_path / "published" / "model.safetensors")
    (tmp_path / "published" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "published" / "pytorch_model.bin")
    prints = set()
    for name in ("ours", "exported", "published"):
        encoder = open_encoder(str(tmp_path / name))
        assert isinstance(encoder, ModelEncoder)
        assert encoder.frame_rate == 75.0
        assert torch.equal(encoder.frames(waveform), expected), "MERT hears the waveform as it is"
        prints.add(fingerprint(encoder))
    assert prints == {fingerprint(ModelEncoder(model))}
    asked = open_encoder(str(tmp_path / "published"), normalize=True)
    assert torch.equal(asked.frames(waveform), ModelEncoder(model).frames(normalized(waveform)))


def test_folders_that_are_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="does not exist; expected a folder"):
        open_encoder(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(MertError, match="is a file"):
        open_encoder(str(tmp_path / "file"))
    with pytest.raises(MertError, match=r"has no config\.json"):
        open_encoder(str(tmp_path))
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ("{}", "has no model_type"),
        ('{"model_type": "bert"}', "describes a 'bert'; expected mert_model, hubert, wav2vec2"),
        ('{"model_type": "hubert", "sample_rate": "high"}', "sample rate of 'high'"),
        ('{"model_type": "mert_model", "sample_rate": 16000}', "MERT for 16000 Hz; expected 24000"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(MertError, match=message):
            open_encoder(str(tmp_path))


CALLABLES = """
import numpy as np
import torch


def windows(waveform, size, hop):
    return waveform.unfold(1, size, hop)


def one_state():
    return lambda waveform: windows(waveform, 480, 480)[..., :8]


def two_states():
    def answer(waveform):
        pieces = windows(waveform, 600, 300)[..., :5]
        return np.stack([pieces.numpy(), -pieces.numpy()])

    answer.name, answer.frame_rate, answer.thread_safe = "double", 80, True
    return answer


class Module(torch.nn.Module):
    sample_rate = 8000

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv1d(1, 4, 160, 160)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, waveform):
        return self.dropout(self.layer(waveform[:, None])).transpose(1, 2)


def module():
    torch.manual_seed(0)
    return Module()


def hop_512():
    return lambda waveform: windows(waveform, 1024, 512)[..., :4]


def hop_441():
    return lambda waveform: windows(waveform, 441, 441)[..., :4]


def hop_317():
    return lambda waveform: windows(waveform, 2048, 317)[..., :4]


def resampled():
    def answer(waveform):
        return windows(waveform, 512, 512)[..., :4]

    answer.sample_rate = 22050
    return answer


def constant():
    return lambda waveform: torch.ones(len(waveform), 3, 4)


def flat():
    return lambda waveform: waveform


def listing():
    return lambda waveform: waveform.tolist()


def another_batch():
    return lambda waveform: torch.ones(1, len(waveform) + 1, 3, 4)


def number():
    return 3


def with_arguments(size):
    return None


value = 3
"""


@pytest.fixture
def callables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_encoders_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CALLABLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_callable_of_one_state(callables: str, tmp_path: Path) -> None:
    encoder = open_encoder(f"{callables}:one_state")
    assert (encoder.states, encoder.width, encoder.frame_rate) == (1, 8, 50.0)
    waveform = music(0.5)
    expected = waveform.unfold(1, 480, 480)[..., :8]
    assert torch.equal(encoder.frames(waveform)[0], expected)
    torch.testing.assert_close(encoder.pooled(waveform)[0], expected.mean(dim=1))
    assert encoder.describe()["encoder"] == f"{callables}:one_state"
    found = embeddings(encoder, [Noise(number, 0.2) for number in range(40)], Chunking(), "frames", tmp_path)
    assert found.offsets[-1] == 400


def test_a_callable_of_arrays_that_says_what_it_is(callables: str) -> None:
    encoder = open_encoder(f"{callables}:two_states")
    assert (encoder.states, encoder.width, encoder.frame_rate) == (2, 5, 80.0)
    assert encoder.describe()["encoder"] == "double"
    frames = encoder.frames(music(0.5))
    assert torch.equal(frames[0], -frames[1])


def test_a_module_gets_its_own_rate_and_drops_nothing(callables: str) -> None:
    encoder = open_encoder(f"{callables}:module")
    assert (encoder.states, encoder.width, encoder.frame_rate) == (1, 4, 50.0)
    waveform = music(0.5, 3000.0)
    assert torch.equal(encoder.pooled(waveform), encoder.pooled(waveform))
    assert not encoder.frames(waveform).requires_grad
    module = encoder.function  # type: ignore[attr-defined]
    expected = module(torch.from_numpy(soxr.resample(waveform.numpy().T, 24000, 8000).T.copy()))
    torch.testing.assert_close(encoder.frames(waveform)[0, :, 3:-3], expected[:, 3:-3], atol=1e-3, rtol=0)
    before = fingerprint(encoder)
    assert fingerprint(open_encoder(f"{callables}:module")) == before
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
    ],
)
def test_callables_that_are_no_encoder(callables: str, name: str, message: str) -> None:
    with pytest.raises(MertError, match=message):
        open_encoder(f"{callables}:{name}")


def test_the_frame_rate_is_exact_where_a_hop_does_not_divide_the_second(callables: str) -> None:
    for hop in (512, 441, 317):
        assert open_encoder(f"{callables}:hop_{hop}").frame_rate == pytest.approx(24000 / hop, rel=1e-9)
    assert open_encoder(f"{callables}:resampled").frame_rate == pytest.approx(22050 / 512, rel=1e-4)


def test_a_callable_whose_frames_do_not_grow_answers_clips_alone(callables: str) -> None:
    encoder = open_encoder(f"{callables}:constant")
    assert encoder.pooled(music(0.5)).shape == (1, len(music(0.5)), 4)
    with pytest.raises(MertError, match="5 s with as many frames as 1 s"):
        _ = encoder.frame_rate


def test_a_module_that_is_not_there(callables: str) -> None:
    with pytest.raises(MertError, match="cannot import 'no_such_module_of_mine'"):
        open_encoder("no_such_module_of_mine:encoder")
    with pytest.raises(MertError, match="let it normalize by itself"):
        open_encoder(f"{callables}:one_state", normalize=True)
