"""`mert embed` as its users run it: a file, a long file, and files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mert_core.embed import embed_file
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from tests.model.test_hubert_parity import SMALL


@pytest.fixture
def model(tmp_path: Path) -> Path:
    MertModel(replace(SMALL, do_stable_layer_norm=True), seed=2).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def recording(path: Path, seconds: float, rate: int = 24000) -> Path:
    generator = np.random.default_rng(3)
    soundfile.write(path, generator.uniform(-0.5, 0.5, round(seconds * rate)), rate, subtype="FLOAT")
    return path


def test_states_of_a_file_are_the_models(tmp_path: Path, model: Path) -> None:
    audio = recording(tmp_path / "a.wav", 1.3)
    assert embed_file(audio, model, "all", tmp_path / "a.npy") == (4, 97, 48)
    found = np.load(tmp_path / "a.npy")
    waveform = torch.from_numpy(soundfile.read(audio, dtype="float32")[0])[None]
    with torch.no_grad():
        expected = torch.cat(MertModel.from_pretrained(model)(waveform).hidden_states).numpy()
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


def test_chunks_stay_close_to_the_whole_and_one_layer_is_a_row_of_all(tmp_path: Path, model: Path) -> None:
    audio = recording(tmp_path / "a.wav", 21.0)
    embed_file(audio, model, "all", tmp_path / "whole.npy", chunk_seconds=30)
    embed_file(audio, model, "all", tmp_path / "chunks.npy", chunk_seconds=6, margin_seconds=1)
    embed_file(audio, model, "2", tmp_path / "two.npy", chunk_seconds=6, margin_seconds=1)
    whole, chunks = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "chunks.npy")
    assert whole.shape == chunks.shape == (4, 1574, 48)
    assert 0 < np.linalg.norm(chunks - whole) / np.linalg.norm(whole) < 0.02
    np.testing.assert_array_equal(np.load(tmp_path / "two.npy"), chunks[2:3])


@pytest.mark.parametrize("content", [b"", b"no music at all", b"RIFF\x00\x00\x00\x00WAVEfmt ", None])
def test_a_bad_file_is_one_clean_sentence_and_writes_nothing(
    tmp_path: Path, model: Path, content: bytes | None
) -> None:
    bad = tmp_path / "bad.wav"
    if content is None:
        soundfile.write(bad, np.full(24000, 0.25), 24000)
    else:
        bad.write_bytes(content)
    with pytest.raises(MertError, match=r"cannot be used.*silent" if content is None else "cannot be used") as caught:
        embed_file(bad, model, "all", tmp_path / "out.npy")
    assert ".." not in str(caught.value) and str(caught.value).endswith("with sound in it.")
    with pytest.raises(MertError, match="unreadable"):
        embed_file(tmp_path / "nothing.wav", model, "all", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_the_music_itself_and_folders_are_not_written_over(tmp_path: Path, model: Path) -> None:
    audio = recording(tmp_path / "a.wav", 1.0)
    content = audio.read_bytes()
    (tmp_path / "link.npy").symlink_to(audio)
    for out in (audio, tmp_path / "link.npy"):
        with pytest.raises(MertError, match="music itself"):
            embed_file(audio, model, "all", out)
    with pytest.raises(MertError, match="is a folder"):
        embed_file(audio, model, "all", tmp_path)
    assert audio.read_bytes() == content


def test_states_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    broken = MertModel(SMALL)
    with torch.no_grad():
        broken.encoder.layers[1].final_layer_norm.weight[5] = torch.nan
    broken.save_pretrained(tmp_path / "broken")
    audio = recording(tmp_path / "a.wav", 1.0)
    with pytest.raises(MertError, match=r"state 2.*damaged"):
        embed_file(audio, tmp_path / "broken", "all", tmp_path / "out.npy")
    assert embed_file(audio, tmp_path / "broken", "1", tmp_path / "out.npy") == (1, 74, 48)


def test_too_short_music_unknown_layers_and_missing_models_are_errors(tmp_path: Path, model: Path) -> None:
    audio = recording(tmp_path / "a.wav", 0.01)
    with pytest.raises(MertError, match="240 samples"):
        embed_file(audio, model, "all", tmp_path / "out.npy")
    with pytest.raises(MertError, match="states 0 to 3"):
        embed_file(audio, model, "4", tmp_path / "out.npy")
    with pytest.raises(MertError, match=r"config\.json"):
        embed_file(audio, tmp_path, "all", tmp_path / "out.npy")
    assert not list(tmp_path.glob("*.npy"))
