from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.probing import embeddings as module
from mert_core.probing.embedding_store import EmbeddingStore
from mert_core.probing.embeddings import Embeddings, embeddings
from mert_core.probing.encoders.base import Encoder, ModelEncoder, fingerprint
from mert_core.probing.tasks import Chunking
from tests.probing.sounds import Counting, Loudness, Noise

WHOLE, HALVES = Chunking(), Chunking(seconds=0.5)
SOUNDS = [Noise(number, 0.2) for number in range(3)]


def everything(found: Embeddings) -> torch.Tensor:
    return found.take(np.arange(found.offsets[-1]))


def means(sounds: Sequence[Noise], caches: Path | None, encoder: Encoder | None = None) -> torch.Tensor:
    """Return all means of whole sounds, by loudness if no encoder is given."""
    return everything(embeddings(encoder or Loudness(), sounds, WHOLE, "mean", caches))


@pytest.fixture(scope="module")
def tiny() -> ModelEncoder:
    return ModelEncoder(MertModel.from_preset("mert-tiny", seed=1))


@pytest.mark.parametrize("pooling", ["mean", "frames"])
def test_half_precision_of_what_the_encoder_answers_to_each_window(
    tiny: ModelEncoder, tmp_path: Path, pooling: str
) -> None:
    three, two = [(0, 12000), (12000, 24000), (24000, 31200)], [(0, 12000), (12000, 24000)]
    cuts = {Noise(0, 1.3): three, Noise(1, 0.4): [(0, 9600)], Noise(2, 1.1): two, Noise(3, 0.5): two[:1]}
    cuts[Noise(4, 1.3)] = three
    found = embeddings(tiny, list(cuts), HALVES, pooling, tmp_path)  # type: ignore[arg-type]
    expected = []
    for sound, bounds in cuts.items():
        for start, stop in bounds:
            window = torch.from_numpy(sound.waveform()[start:stop])[None]
            expected.append(tiny.pooled(window) if pooling == "mean" else tiny.frames(window)[:, 0])
    exact, stored = torch.cat(expected, dim=1), everything(found)
    assert stored.dtype == torch.float32
    assert stored.shape == exact.shape == (found.states, found.offsets[-1], found.width)
    assert ((stored - exact).abs() <= exact.abs() * 2**-11 + 2**-24 + 1e-5).all(), "rounding to 11 bits, and no more"
    assert found.frame_rate == (None if pooling == "mean" else 75.0)
    assert np.diff(found.offsets)[1:3].tolist() == ([1, 2] if pooling == "mean" else [29, 2 * 37])
    times = found.times(2)
    assert times.tolist() == ([0, 0.5] if pooling == "mean" else [k + j / 75 for k in (0, 0.5) for j in range(37)])


def test_rows_owners_and_any_rows_in_any_order(tmp_path: Path) -> None:
    sounds = [Noise(0, 0.2), Noise(1, 0.3, broken="truncated"), Noise(2, 0.1), Noise(0, 0.2)]
    found = embeddings(Loudness(), sounds, WHOLE, "frames", tmp_path)
    assert found.offsets.tolist() == [0, 20, 20, 30, 50]
    assert found.missing == {1: "truncated"}
    assert found.rows([2, 1, 0]).tolist() == [*range(20, 30), *range(20)]
    assert found.owners([2, 1, 0]).tolist() == [0] * 10 + [2] * 20
    assert [found.samples(number) for number in range(4)] == [4800, 0, 2400, 4800]
    assert found.times(1).tolist() == []
    every = everything(found)
    assert torch.equal(every[:, :20], every[:, 30:]), "one sound, asked for twice"
    chosen = np.random.default_rng(0).permutation(50)[:31]
    assert torch.equal(found.take(chosen), every[:, chosen])
    assert torch.equal(found.take(chosen, states=[1]), every[1:, chosen])
    assert found.take(chosen[:0]).shape == (2, 0, 3)
    with pytest.raises(IndexError, match="there are 50"):
        found.take(np.array([50]))
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.take(chosen), every[:, chosen])
    assert len(pickle.dumps(found)) < 4000


def test_order_and_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [Noise(number, 0.1 * (1 + number % 3)) for number in range(30)]
    one = means(sounds, tmp_path / "one")
    cut = everything(embeddings(Loudness(), sounds, Chunking(0.1), "mean", None))
    monkeypatch.setattr(module, "CPU_BATCH_SECONDS", 0.25)
    monkeypatch.setattr(module, "_WAITING_SECONDS", 0.3)
    monkeypatch.setattr(module, "SHARD_SOUNDS", 4)
    assert torch.equal(one, means(sounds[::-1], tmp_path / "two").flip(1))
    assert torch.equal(one, means(sounds, None))
    monkeypatch.setattr(module, "_HELD_BYTES", 0)  # no sound may wait half embedded
    assert torch.equal(cut, everything(embeddings(Loudness(), sounds, Chunking(0.1), "mean", None)))
    assert len(list((tmp_path / "two").rglob("*.npy"))) == 8


def test_tasks_share_what_both_ask_for(tmp_path: Path) -> None:
    encoder = Counting()
    embeddings(encoder, [Noise(0, 0.4), Noise(1, 0.4), Noise(0, 0.4)], WHOLE, "mean", tmp_path)
    assert encoder.windows == 2, "one sound that is asked for twice is embedded once"
    embeddings(encoder, [Noise(1, 0.4), Noise(2, 0.4)], Chunking(30.0), "mean", tmp_path)
    assert encoder.windows == 3, "a clip shorter than a window is a whole clip"
    embeddings(encoder, [Noise(0, 0.4)], Chunking(0.2), "mean", tmp_path)
    assert encoder.windows == 5, "other windows"
    embeddings(encoder, [Noise(0, 0.4)], WHOLE, "frames", tmp_path)
    assert encoder.windows == 6, "time is kept"
    embeddings(Loudness(2.0), [Noise(0, 0.4)], WHOLE, "mean", tmp_path)
    for chunking, pooling in ((WHOLE, "mean"), (Chunking(0.2), "mean"), (WHOLE, "frames")):
        embeddings(encoder, [Noise(0, 0.4)], chunking, pooling, tmp_path)  # type: ignore[arg-type]
    assert encoder.windows == 6
    assert len(list((tmp_path / "embeddings").iterdir())) == 3


def test_what_was_interrupted_goes_on_at_the_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_SOUNDS", 5)
    monkeypatch.setattr(module, "CPU_BATCH_SECONDS", 0.1)
    sounds = [Noise(number, 0.1) for number in range(23)]
    with pytest.raises(InterruptedError):
        means(sounds, tmp_path, Counting(most=13))
    (folder,) = (tmp_path / "embeddings").iterdir()
    finished = 5 * len(list(folder.glob("*.npy")))
    assert finished in (5, 10)
    next(folder.glob("*.json")).with_name("0123.npy").write_bytes(b"rows whose card was never written")
    left = folder / ".abc.npy.tmp"
    left.write_bytes(b"begun")
    os.utime(left, (0, 0))
    encoder = Counting()
    assert torch.equal(means(sounds, tmp_path, encoder), means(sounds, None))
    assert encoder.windows == len(sounds) - finished
    assert not left.exists()


class Slow(Loudness):
    def frames(self, waveform: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)
        return super().frames(waveform)


def embed_slowly(caches: Path) -> None:
    module.SHARD_SOUNDS = 4
    means([Noise(number, 0.1 + 0.01 * number) for number in range(200)], caches, Slow())


def test_another_process_writes_and_is_killed(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=embed_slowly, args=(tmp_path,), daemon=True)
    other.start()
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    encoder = Counting()
    sounds = [Noise(number, 0.1 + 0.01 * number) for number in range(20)]
    found = means(sounds, tmp_path, encoder)
    assert encoder.windows <= 16, "its finished shards are used"
    assert other.is_alive()
    other.kill()
    other.join()
    assert other.exitcode == -signal.SIGKILL
    expected = means(sounds, None)
    assert torch.equal(found, expected)
    assert torch.equal(means(sounds, tmp_path, encoder), expected)
    assert encoder.windows <= 16


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of some kept embeddings, below ``tmp_path``."""
    means(SOUNDS, tmp_path)
    (folder,) = (tmp_path / "embeddings").iterdir()
    return folder


def test_damaged_bytes_or_cards_are_refused(tmp_path: Path, kept: Path) -> None:
    (rows,), (card,) = kept.glob("*.npy"), (path for path in kept.glob("*.json") if path.name != "card.json")
    whole, listed = rows.read_bytes(), card.read_text()
    for path, content, message in (
        (
            rows,
            whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
            r"not those that were written\. Remove the folder .*emb",
        ),
        (rows, None, "No such file"),
        (card, listed.replace(SOUNDS[1].identity, SOUNDS[1].identity[::-1]).encode(), "not those that were written"),
        (card, b"{", f"{card.name} are refused"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MertError, match=message):
            means(SOUNDS, tmp_path)


def test_what_is_of_something_else_is_refused_by_name(kept: Path) -> None:
    card = json.loads((kept / "card.json").read_text())
    assert len(EmbeddingStore(kept, card).sounds) == len(SOUNDS)
    with pytest.raises(MertError, match="pooling is 'mean', expected 'frames'"):
        EmbeddingStore(kept, card | {"pooling": "frames"})
    with pytest.raises(MertError, match=f"encoder is '{fingerprint(Loudness())}', expected"):
        EmbeddingStore(kept, card | {"encoder": fingerprint(Loudness(2.0))})
    (kept / "card.json").write_text("{")
    with pytest.raises(MertError, match=r"card\.json are refused"):
        EmbeddingStore(kept, card)


def test_other_audio_under_the_same_identity_is_refused(tmp_path: Path) -> None:
    means([Noise(0, 0.4, name="song")], tmp_path)
    for changed in (Noise(1, 0.4, name="song"), Noise(0, 0.5, name="song")):
        for chunking in (WHOLE, Chunking(0.2)):
            with pytest.raises(MertError, match="it was changed, or is decoded otherwise"):
                embeddings(Loudness(), [changed], chunking, "mean", tmp_path)


@pytest.mark.parametrize(
    ("scale", "states", "message"),
    [
        (float("nan"), 2, "not finite .*diverged"),
        (1e8, 2, "beyond half precision's 65504"),
        (1.0, 3, r"shape \(2, 1, 1, 3\); expected \(3 states, 1, frames, width\)"),
    ],
)
def test_answers_of_another_shape_or_beyond_half_precision_are_refused(tmp_path, scale, states, message) -> None:
    encoder = Loudness(scale)
    encoder.states = states
    with pytest.raises(MertError, match=message):
        means([Noise(0)], tmp_path, encoder)
    assert not list(tmp_path.rglob("*.npy"))


def test_unusable_sounds_are_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    sounds = [Noise(0), Noise(1, 0.049), Noise(2, broken="damaged"), Noise(3)]
    for _ in range(2):
        found = embeddings(Loudness(), sounds, WHOLE, "mean", tmp_path)
        assert found.missing == {1: "too short", 2: "damaged"}
        assert found.offsets.tolist() == [0, 1, 1, 1, 2]
    with pytest.raises(MertError, match="none of the 2 sounds of mtt can be used: 1 × too short, 1 × damaged"):
        embeddings(Loudness(), sounds[1:3], WHOLE, "mean", tmp_path, "mtt")
    with pytest.raises(MertError, match="no sound to embed for mtt"):
        embeddings(Loudness(), [], WHOLE, "mean", tmp_path, "mtt")
