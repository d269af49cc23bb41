"""EnCodec's codes of whole songs: ours as the stage ``targets`` makes them against the package's, file by file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.comparators.encodec import encodec_24khz, serial
from benchmarks.music import melodies
from benchmarks.row import Row, Tell
from benchmarks.timing import Pairs, paired
from mert_core.workers import single_threads

SONGS_PER_WORKER, SONG_SECONDS, MOST_ROUNDS = 6, 30.0, 3
CODEBOOKS = 8
TARGET = 2.0
_CONDITION_SECONDS = 2.0
_SCALES = (0.7, 1.3)


def sides(music: Tensor, seed: int = 0) -> tuple[Any, Any]:
    """Return our teacher and the package's model, of the published architecture and with the same weights.

    The published weights are not at hand everywhere, so these are random, scaled so that every layer's outputs vary.
    The entries of each codebook are what the codebooks before it leave of frames that these have not seen, each made
    somewhat larger or smaller so that no two are the same: codes as diverse as those of a trained quantiser.

    Args:
        music: (songs, samples) for that; other music than what is measured.
        seed: of the weights.
    """
    from mert_core.teachers.acoustic import CodecTeacher
    from mert_core.teachers.conditioning import condition
    from mert_core.teachers.encodec_published import PUBLISHED
    from mert_core.teachers.rvqvae import RvqVae

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = RvqVae(PUBLISHED).eval()
        condition(model, music[:, : round(_CONDITION_SECONDS * 24000)])
        state = {name: value.clone() for name, value in model.state_dict().items()}
        teacher = CodecTeacher(None, PUBLISHED, CODEBOOKS).adopt(model)
        frames = teacher.latent(music).transpose(1, 2).flatten(0, 1)
        frames = frames[torch.randperm(len(frames))]
        books: list[Any] = [layer._codebook for layer in teacher.model.quantizer.vq.layers[:CODEBOOKS]]
        for number, (book, fresh) in enumerate(zip(books, frames.tensor_split(CODEBOOKS), strict=True)):
            for before in books[:number]:
                fresh = fresh - before.decode(before.encode(fresh))
            drawn = fresh[torch.randint(len(fresh), (PUBLISHED.entries,))]
            book.embed.copy_(drawn * torch.empty(len(drawn), 1).uniform_(*_SCALES))
            book.inited.fill_(1)
        quantiser = {f"quantizer.{name}": value for name, value in teacher.model.quantizer.state_dict().items()}
    return teacher, encodec_24khz(state | quantiser)


def ours(teacher: Any, songs: Tensor, each: int = SONGS_PER_WORKER) -> Tensor:
    """Encode songs (songs, samples) in batches on single-threaded workers → int64 (songs, frames, 8)."""
    with single_threads() as pool:
        return torch.cat(list(pool.map(teacher, songs.split(each))))


def check_equal(found: Tensor, expected: Tensor) -> None:
    """Compare codes.

    Raises:
        AssertionError: one differs, or a codebook's are too few to tell.
    """
    used = [len(codes.unique()) for codes in expected.flatten(0, 1).t()]
    if min(used) < min(100, expected[..., 0].numel() // 10):
        raise AssertionError(f"the music uses {used} entries of the codebooks, too few to compare by")
    differ = int((found != expected).sum())
    if differ:
        raise AssertionError(f"{differ} of {expected.numel()} codes differ; expected the same")


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure whole songs; three rounds, which hardly differ."""
    teacher, other = sides(melodies(4, 30.0, seed=1))
    songs = melodies(SONGS_PER_WORKER * torch.get_num_threads(), SONG_SECONDS)
    expected = serial(other, songs)
    check_equal(ours(teacher, songs), expected)
    tell(f"all {expected.numel()} codes are the same")
    pairs = paired(lambda: ours(teacher, songs), lambda: serial(other, songs), min(rounds, MOST_ROUNDS), tell)
    seconds = len(songs) * SONG_SECONDS
    of_music = Pairs(*([taken / seconds for taken in side] for side in (pairs.ours, pairs.theirs)))
    figure = f"EnCodec's codes of {SONG_SECONDS:g} s songs against the package, file by file, the same codes"
    return [Row.of_speed(figure, TARGET, of_music, lambda each: f"{1 / each:.1f} s of music/s")]
