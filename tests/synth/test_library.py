"""Which pieces there are, how they are split, and that parsing is the same however it is reached."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.synth import library as library_module
from mert_core.synth.labels import pitch_class_times
from mert_core.synth.library import SPLITS, Library, assign_splits, corpus_folder, list_candidates, load_library
from mert_core.synth.pieces import Candidate, UnusableScoreError, cache_path, load_piece, split_songs
from tests.synth.conftest import line_piece


@pytest.fixture
def chorale() -> Candidate:
    return Candidate("bach/bwv66.6.mxl", "bach", "bach/bwv66.6", 0, corpus_folder() / "bach/bwv66.6.mxl")


def test_every_composer_has_pieces_in_every_split_and_no_work_is_in_two(library: Library) -> None:
    for composer in library.composers:
        assert [len(library.of(split, composer)) for split in SPLITS] == [2, 1, 1]
    splits = defaultdict(set)
    for piece in library.pieces:
        splits[piece.group].add(piece.split)
    assert all(len(found) == 1 for found in splits.values())


def test_transposed_copy_counts_as_the_same_work(scores_config: Config) -> None:
    tunes = [tuple(60 + (step * factor) % 11 for step in range(24)) for factor in (1, 3, 4, 5)]
    pieces = [line_piece(tune, score=f"s{index}", group=f"g{index}") for index, tune in enumerate(tunes)]
    copy = line_piece(tuple(pitch + 5 for pitch in tunes[2]), score="copy", group="elsewhere")
    placed = {piece.score: piece for piece in assign_splits([*pieces, copy], scores_config)}
    assert placed["copy"].split == placed["s2"].split
    assert placed["copy"].group == placed["s2"].group
    assert {piece.split for piece in placed.values()} == set(SPLITS)


def test_too_few_works_is_an_error(scores_config: Config) -> None:
    one_work = [line_piece(tuple(range(40 + n, 64 + n)), score=f"s{n}", group="g") for n in range(5)]
    with pytest.raises(MertError, match="bach has 1 works"):
        assign_splits(one_work, scores_config)


def test_movements_share_their_work() -> None:
    works = {one.group for one in list_candidates("haydn-mozart", 0)}
    assert {"haydn-mozart/haydn/opus1no1", "haydn-mozart/mozart/k458"} <= works
    assert len(works) == 7


def test_other_seed_other_order() -> None:
    first, again, other = (list_candidates("bach", seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert set(first) == set(other)


def test_unreadable_score_makes_room_for_the_next(
    scores_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.mxl"
    broken.write_bytes(b"no score at all")
    candidates = list_candidates("bach", scores_config.seed)[:5]
    bad = replace(candidates[0], score="bach/broken.mxl", path=broken)
    monkeypatch.setattr(library_module, "list_candidates", lambda *_: [bad, *candidates[1:]])
    library = load_library(scores_config, tmp_path, ["bach"])
    assert {piece.score for piece in library.pieces} == {one.score for one in candidates[1:]}
    assert len(library.left_out) == 1
    assert "bach/broken.mxl" in caplog.text


def test_cached_piece_equals_fresh_one(chorale: Candidate, tmp_path: Path) -> None:
    fresh = load_piece(chorale, tmp_path)
    written = cache_path(chorale, tmp_path).read_bytes()
    assert load_piece(chorale, tmp_path) == fresh
    cache_path(chorale, tmp_path).write_bytes(written[:50])  # a damaged entry is made again
    assert load_piece(chorale, tmp_path) == fresh
    assert cache_path(chorale, tmp_path).read_bytes() == written


def test_upbeat_ties_and_key_of_a_chorale(chorale: Candidate, tmp_path: Path) -> None:
    piece = load_piece(chorale, tmp_path)
    assert len(piece.parts) == 4
    assert piece.keys[0].sharps == 3
    assert (piece.bars[0].length, piece.bars[0].downbeat) == (1.0, False)
    assert [bar.downbeat for bar in piece.bars[1:4]] == [True, True, True]
    assert piece.bars[1].beats == (1.0, 2.0, 3.0, 4.0)
    assert piece.parts[0].pitches[:5] == (73, 71, 69, 71, 73)
    assert pitch_class_times(piece.parts).sum() == pytest.approx(4 * piece.length)


def test_grace_notes_chords_ties_and_bars_of_abc(tmp_path: Path) -> None:
    path = tmp_path / "songs.abc"
    tune = "A2B2 [ce]2d2|{g}A2B2 c2d2|A8-|A8|" * 3
    path.write_text(
        f"X:1\nT:one\nM:4/4\nL:1/8\nK:Am\n{tune}\n\nX:7\nT:two\nM:6/8\nL:1/8\nK:D\nABc def|\n", encoding="utf-8"
    )
    assert sorted(split_songs(path.read_bytes())) == [1, 7]
    piece = load_piece(Candidate("songs#1", "ryan", "ryan/songs#1", 1, path), tmp_path)
    part = piece.parts[0]
    assert part.onsets[:5] == (0.0, 1.0, 2.0, 2.0, 3.0)
    assert 79 not in part.pitches  # the grace note
    assert (part.onsets[9], part.durations[9]) == (8.0, 8.0)  # two tied wholes are one note
    assert (piece.keys[0].sharps, piece.keys[0].mode) == (0, "minor")
    with pytest.raises(UnusableScoreError, match="fewer than"):
        load_piece(Candidate("songs#7", "ryan", "ryan/songs#7", 7, path), tmp_path)


def test_same_notes_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    script = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path;"
        "from mert_core.synth.library import list_candidates; from mert_core.synth.pieces import load_piece;"
        "print(json.dumps(asdict(load_piece(list_candidates('ryan', 3)[0], Path(sys.argv[1])))))"
    )
    results = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        environment = {"PYTHONHASHSEED": seed, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        root = Path(__file__).parents[2]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=True)
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]
