"""The codec: same codes in pieces as in one pass, codebooks that start well and stay alive, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.teachers.codec.encode import CodecTeacher
from mert_core.teachers.codec.encodec import PUBLISHED, load_published
from mert_core.teachers.codec.model import Architecture, RvqVae, SteadyCodebook
from mert_core.teachers.codec.train import RvqVaeSettings, RvqVaeTeacher, condition
from mert_core.teachers.registry import CARD_NAME, WEIGHTS_NAME, load_teacher, save_teacher


@pytest.fixture
def model() -> RvqVae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RvqVae(Architecture(codebooks=4, entries=16, filters=4, dimension=8)).eval()
        condition(model, music(2))
        model.start_codebooks(model.encoder(music(2).unsqueeze(1)).detach())
    return model


def music(seconds: float, clips: int = 2) -> torch.Tensor:
    noise = torch.randn(clips, int(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(1))
    return 0.1 * noise + 0.3 * torch.sin(torch.arange(noise.shape[1]) * 0.05)


def teacher_of(model: RvqVae, codebooks: int = 4) -> CodecTeacher:
    settings = RvqVaeSettings(codebooks=codebooks, entries=16, filters=4, dimension=8)
    kept = RvqVae(replace(model.architecture, codebooks=codebooks))
    kept.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept.state_dict()})
    return RvqVaeTeacher(settings).adopt(kept)


def one_pass(model: RvqVae, waveform: torch.Tensor) -> torch.Tensor:
    """What the encodec package does: the whole track at once."""
    with torch.no_grad():
        return model.quantizer.encode(model.encoder(waveform.unsqueeze(1)), 75).permute(1, 2, 0)


@pytest.mark.parametrize("samples", [320, 24_000, 24_640, 24_641, 48_640, 48_961, 99_999])
def test_codes_in_pieces_are_those_of_one_pass(model: RvqVae, samples: int) -> None:
    waveform = music(samples / SAMPLE_RATE + 0.01)[:, :samples]
    expected = one_pass(model, waveform)
    found = teacher_of(model)(waveform)
    assert (found.dtype, found.shape) == (torch.int64, (2, -(-samples // HOP_SAMPLES), 4))
    assert torch.equal(found, expected)


def test_silence_after_the_end_changes_nothing_before_it(model: RvqVae) -> None:
    teacher, waveform = teacher_of(model), music(2.0)
    padded = torch.nn.functional.pad(waveform, (0, 40_000))
    assert torch.equal(teacher(padded)[:, : 2 * 75], teacher(waveform))


def test_fewer_codebooks_are_the_first_ones(model: RvqVae) -> None:
    assert torch.equal(teacher_of(model, 3)(music(1.0)), teacher_of(model)(music(1.0))[..., :3])


def test_damaged_teacher_is_refused(model: RvqVae, tmp_path: Path) -> None:
    with pytest.raises(MertError, match="mert teachers fit"):
        load_teacher(tmp_path)
    save_teacher(tmp_path, teacher_of(model))
    content = (tmp_path / WEIGHTS_NAME).read_bytes()
    (tmp_path / WEIGHTS_NAME).write_bytes(content[:1000])
    with pytest.raises(MertError, match="does not hold"):
        load_teacher(tmp_path)
    (tmp_path / WEIGHTS_NAME).write_bytes(content)
    card = (tmp_path / CARD_NAME).read_text()
    (tmp_path / CARD_NAME).write_text(card.replace('"filters": 4', '"filters": 5'))
    with pytest.raises(MertError, match="does not hold"):
        load_teacher(tmp_path)


def test_published_weights_load_unchanged_and_strictly(tmp_path: Path) -> None:
    encodec = pytest.importorskip("encodec")
    # The package's own class without its weights: the keys and shapes of the published file.
    state = encodec.EncodecModel.encodec_model_24khz(pretrained=False).state_dict()
    path = tmp_path / "encodec_24khz-d7cc33bc.th"
    torch.save(state, path)
    loaded = load_published(path)
    assert loaded.architecture == PUBLISHED
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())

    state["decoder.model.0.conv.conv.weight"] = state.pop("decoder.model.0.conv.conv.weight_v")
    torch.save(state, path)
    with pytest.raises(
        MertError, match=r"Missing.*decoder\.model\.0\.conv\.conv\.weight_v[\s\S]*Unexpected.*conv\.conv\.weight\""
    ):
        load_published(path)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="cannot read"):
        load_published(tmp_path / "absent.th")
    (tmp_path / "text.th").write_text("not weights")
    with pytest.raises(MertError, match="not a torch state dict"):
        load_published(tmp_path / "text.th")
    torch.save([1, 2], tmp_path / "list.th")
    with pytest.raises(MertError, match=r"not EnCodec's 24 kHz model.*dict"):
        load_published(tmp_path / "list.th")


def codebook() -> SteadyCodebook:
    torch.manual_seed(0)
    book = SteadyCodebook(dim=2, codebook_size=4, kmeans_init=True, kmeans_iters=10, decay=0.9)
    book.threshold_ema_dead_code = 0.1
    return book


def clusters() -> torch.Tensor:
    centres = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    return (centres[:, None] + 0.1 * torch.randn(4, 25, 2)).reshape(-1, 2)


def test_the_first_update_keeps_the_k_means_centroids() -> None:
    book, vectors = codebook(), clusters()
    book.train()
    book.init_embed_(vectors)
    before = book.embed.clone()
    book(vectors)
    assert (book.embed - before).norm() < 0.2 * before.norm()


def test_a_dead_entry_is_put_on_music_and_stays_there() -> None:
    book, vectors = codebook(), clusters()
    book.init_embed_(vectors)
    book.embed[0] = 1e4
    book.embed_avg[0] = 0.0
    book.cluster_size[0] = 0.0
    book.train()
    for _ in range(2):
        book(vectors)
        assert book.embed[0].norm() < 15
    assert float(book.cluster_size[0]) > 0
