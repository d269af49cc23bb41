"""The manifest's promises, and the splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from mert_core.corpus.sources import assign_splits
from mert_core.data.manifest import SCHEMA, check_manifest
from mert_core.data.tables import write_table
from mert_core.errors import MertError


def manifest(*changes: dict, tracks: int = 4) -> pa.Table:  # type: ignore[type-arg]
    rows = [
        {
            "track_id": f"t{number}",
            "content_hash": f"h{number}",
            "seconds": 4.0,
            "samples": 96000,
            "source_rate": 44100,
            "source": f"s{number}.wav",
            "piece": f"p{number}",
            "artist": f"a{number}",
            "split": "valid" if number == 3 else "train",
            "licence": "CC0",
            "shard": 0,
            "offset_samples": 96000 * number,
            "clipped_samples": 0,
            "source_sha256": None,
        }
        for number in range(tracks)
    ]
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def check(folder: Path, table: pa.Table) -> None:
    write_table(folder / "manifest.parquet", table)
    check_manifest(folder / "manifest.parquet")


def test_a_good_manifest_passes(tmp_path: Path) -> None:
    check(tmp_path, manifest())
    check(tmp_path, manifest({"shard": 1, "offset_samples": 0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track_id": "t1"}, "track_id is not unique: 't1'"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"split": None}, "unknown split None"),
        ({"piece": "p3"}, "piece in more than one split: 'p3'"),
        ({"content_hash": "h3"}, "content_hash in more than one split: 'h3'"),
        ({"samples": 95999}, "grid"),
        ({"samples": 0}, "grid"),
        ({"seconds": 4.1}, "seconds and samples differ"),
        ({"offset_samples": 1}, "grid"),
        ({"offset_samples": 96000 - 320}, "overlap"),
    ],
)
def test_every_broken_promise_is_named(tmp_path: Path, change: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(MertError, match=message):
        check(tmp_path, manifest(change))


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="no tracks"):
        check(tmp_path, SCHEMA.empty_table())


@pytest.fixture
def split(tmp_path: Path) -> Callable[..., tuple[list[str], str]]:
    """Give splits to tracks of (artist, samples), by the seed and the share to hold out."""

    def split(lengths: list[tuple[str, int]], seed: int, valid_fraction: float) -> tuple[list[str], str]:
        changes = ({"artist": name, "samples": samples, "split": None} for name, samples in lengths)
        write_table(tmp_path / "rows.parquet", manifest(*changes, tracks=len(lengths)))
        splits, split_by = assign_splits(tmp_path / "rows.parquet", seed, valid_fraction)
        return splits.to_pylist(), split_by

    return split


Split = Callable[[list[tuple[str, int]], int, float], tuple[list[str], str]]


def test_splits_go_by_artist_and_the_seed_decides(split: Split) -> None:
    tracks = [(f"a{number // 5}", 3200) for number in range(100)]
    splits, split_by = split(tracks, 1337, 0.2)
    assert split_by == "artist" and splits.count("valid") == 20
    assert len(set(zip(tracks, splits, strict=True))) == 20, "no artist is in two splits"
    assert split(tracks, 1337, 0.2)[0] == splits != split(tracks, 1, 0.2)[0]


def test_a_new_artist_moves_few_of_the_old(split: Split) -> None:
    tracks = [(f"a{number}", 3200) for number in range(100)]
    before, after = (split(music, 1337, 0.2)[0] for music in (tracks, [*tracks, ("new", 3200)]))
    assert sum(one != other for one, other in zip(before, after[:-1], strict=True)) <= 1


def test_a_huge_artist_is_never_held_out(split: Split) -> None:
    for seed in range(8):
        splits, _ = split([("huge", 3_200_000), ("small", 3200), ("other", 6400)], seed, 0.1)
        assert splits[0] == "train" and "valid" in splits


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_both_splits_have_music(split: Split, fraction: float) -> None:
    for lengths in ([("a", 320), ("b", 320)], [("a", 320)] * 2, [("a", 320), ("b", 3200), ("c", 640)]):
        splits, split_by = split(lengths, 0, fraction)
        assert set(splits) == {"train", "valid"}
        assert split_by == ("piece" if len({name for name, _ in lengths}) == 1 else "artist")


def test_nothing_to_hold_out(split: Split) -> None:
    with pytest.raises(MertError, match=r"only usable piece is 's0.wav'.*held out"):
        split([("a", 320)], 0, 0.1)
