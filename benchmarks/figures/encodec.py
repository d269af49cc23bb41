"""EnCodec's codes of whole songs: ours as the stage ``targets`` makes them against the package's, file by file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.comparators.encodec import encodec_24khz, serial
from benchmarks.music import melodies
from benchmarks.row import Row, Tell
from benchmarks.timing import Pairs, paired
from mert_core.parallel import single_threads

SONGS_PER_WORKER, SONG_SECONDS, MOST_ROUNDS = 6, 30.0, 3
CODEBOOKS = 8
TARGET = 2.0
_CONDITION_SECONDS = 2.0
_TIE = 1e-5


def sides(music: Tensor, seed: int = 0) -> tuple[Any, Any]:
    """Return our teacher and the package's model, of the published architecture and with the same weights.

    The published weights are not at hand everywhere, so these are random, scaled so that every layer's outputs vary.
    The entries of each codebook are what the codebooks before it leave of frames that these have not seen, and these
    with their dimensions turned where frames are fewer than entries: codes as diverse as those of a trained quantizer.

    Args:
        music: (songs, samples) for that; other music than what is measured.
        seed: of the weights.
    """
    from mert_core.teachers.codec.encode import CodecTeacher
    from mert_core.teachers.codec.encodec import PUBLISHED
    from mert_core.teachers.codec.model import RvqVae
    from mert_core.teachers.codec.train import condition

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
            turned = [fresh.roll(turn, 1) for turn in range(-(-PUBLISHED.entries // len(fresh)))]
            book.embed.copy_(torch.cat(turned)[: PUBLISHED.entries])
            book.inited.fill_(1)
        quantizer = {f"quantizer.{name}": value for name, value in teacher.model.quantizer.state_dict().items()}
    return teacher, encodec_24khz(state | quantizer)


def ours(teacher: Any, songs: Tensor, each: int = SONGS_PER_WORKER) -> Tensor:
    """Encode songs (songs, samples) in batches on single-threaded workers → int64 (songs, frames, 8)."""
    with single_threads() as pool:
        return torch.cat(list(pool.map(teacher, songs.split(each))))


def check_equal(teacher: Any, songs: Tensor, found: Tensor, expected: Tensor) -> int:
    """Compare codes (songs, frames, codebooks) and return how many frames differ.

    A frame may differ from a codebook on whose two entries are equally near, to 1e-5, what is left of the frame: either
    side has its own rounding, and then its own rest.

    Raises:
        AssertionError: a code differs otherwise, or the codes are too few to compare by.
    """
    used = [len(codes.unique()) for codes in expected.flatten(0, 1).t()]
    if min(used) < 30:
        raise AssertionError(f"the music uses {used} entries of the codebooks, too few to compare by")
    frames = (found != expected).any(2).nonzero().tolist()
    for song, frame in frames:
        rest = teacher.latent(songs[song : song + 1])[0, :, frame].double()
        for layer, mine, theirs in zip(
            teacher.model.quantizer.vq.layers, found[song, frame].tolist(), expected[song, frame].tolist(), strict=False
        ):
            entries = layer._codebook.embed.double()
            near, other = ((rest - entries[code]).square().sum().item() for code in (mine, theirs))
            if abs(near - other) > _TIE * near:
                raise AssertionError(f"song {song}, frame {frame}: code {mine} for {theirs}, and not because of a tie")
            if mine != theirs:
                break
            rest = rest - entries[mine]
    return len(frames)


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure whole songs; three rounds, which hardly differ."""
    teacher, other = sides(melodies(4, 30.0, seed=1))
    songs = melodies(SONGS_PER_WORKER * torch.get_num_threads(), SONG_SECONDS)
    expected = serial(other, songs)
    ties = check_equal(teacher, songs, ours(teacher, songs), expected)
    tell(f"the codes of {expected[..., 0].numel()} frames are the same, except in {ties} by a tie")
    pairs = paired(lambda: ours(teacher, songs), lambda: serial(other, songs), min(rounds, MOST_ROUNDS), tell)
    seconds = len(songs) * SONG_SECONDS
    of_music = Pairs(*([taken / seconds for taken in side] for side in (pairs.ours, pairs.theirs)))
    figure = f"EnCodec's codes of {SONG_SECONDS:g} s songs against the package, file by file"
    return [Row.of_speed(figure, TARGET, of_music, lambda each: f"{1 / each:.1f} s of music/s")]
