"""The manifest's promises, and the splits."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mert_core.corpus.splits import assign_splits
from mert_core.data.manifest import SCHEMA, check_manifest
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


def test_a_good_manifest_passes() -> None:
    check_manifest(manifest())
    check_manifest(manifest({"shard": 1, "offset_samples": 0}))


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
def test_every_broken_promise_is_named(change: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(MertError, match=message):
        check_manifest(manifest(change))


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(MertError, match="no tracks"):
        check_manifest(SCHEMA.empty_table())


def of_artists(*lengths: tuple[str, int]) -> pa.Table:
    changes = ({"artist": name, "samples": samples, "split": None} for name, samples in lengths)
    return manifest(*changes, tracks=len(lengths))


def splits_of(table: pa.Table, seed: int, valid_fraction: float) -> list[str]:
    return assign_splits(table, seed, valid_fraction)[0].to_pylist()


def test_splits_go_by_artist() -> None:
    table = of_artists(*((f"a{number // 5}", 3200) for number in range(100)))
    splits, split_by = assign_splits(table, 1337, 0.2)
    assert split_by == "artist"
    artists = dict.fromkeys(zip(table["artist"].to_pylist(), splits.to_pylist(), strict=True))
    assert len(artists) == 20  # no artist is in two splits
    assert splits.to_pylist().count("valid") == 20


def test_the_seed_decides() -> None:
    table = of_artists(*((f"a{number}", 3200) for number in range(50)))
    splits = [splits_of(table, seed, 0.2) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_a_new_artist_moves_few_of_the_old() -> None:
    names = [f"a{number}" for number in range(100)]
    before = splits_of(of_artists(*((name, 3200) for name in names)), 1337, 0.2)
    after = splits_of(of_artists(*((name, 3200) for name in [*names, "new"])), 1337, 0.2)
    assert sum(one != other for one, other in zip(before, after[:-1], strict=True)) <= 1


@pytest.mark.parametrize("seed", range(8))
def test_a_huge_artist_is_never_held_out(seed: int) -> None:
    splits = splits_of(of_artists(("huge", 3_200_000), ("small", 3200), ("other", 6400)), seed, 0.1)
    assert splits[0] == "train"
    assert "valid" in splits


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_both_splits_have_music(fraction: float) -> None:
    for lengths in ([("a", 320), ("b", 320)], [("a", 320)] * 2, [("a", 320), ("b", 3200), ("c", 640)]):
        splits, split_by = assign_splits(of_artists(*lengths), 0, fraction)
        assert set(splits.to_pylist()) == {"train", "valid"}
        assert split_by == ("piece" if len({name for name, _ in lengths}) == 1 else "artist")


def test_nothing_to_hold_out() -> None:
    with pytest.raises(MertError, match="held out"):
        assign_splits(of_artists(("a", 320)), 0, 0.1)
