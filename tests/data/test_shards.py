"""int16 conversion and shards."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mert_core.data.shards import ShardReader, ShardWriter, to_float32, to_int16
from mert_core.errors import MertError


def test_every_int16_survives_the_round_trip() -> None:
    every = np.arange(-32768, 32768).astype("<i2")
    back, clipped = to_int16(to_float32(every))
    assert np.array_equal(back, every)
    assert clipped == 0


def test_clipping_is_counted_and_never_wraps() -> None:
    wave = np.array([1.5, -1.5, 1.0, -1.0, 0.0, 1.0001], dtype=np.float32)
    before = wave.copy()
    pcm, clipped = to_int16(wave)
    assert pcm.tolist() == [32767, -32768, 32767, -32768, 0, 32767]
    assert clipped == 3
    assert np.array_equal(wave, before), "the input is left alone"


def test_shards_split_between_tracks(tmp_path: Path) -> None:
    tracks = [np.full(320 * hops, number, dtype="<i2") for number, hops in enumerate([2, 3, 1, 9, 1], start=1)]
    with ShardWriter(tmp_path, shard_megabytes=320 * 2 * 5 / 1e6) as writer:  # five hops
        places = [writer.append(track) for track in tracks]
    assert places == [(0, 0), (0, 640), (1, 0), (2, 0), (3, 0)]
    assert (tmp_path / "00000.pcm").read_bytes()[:2] == b"\x01\x00", "little-endian"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{shard:05d}.pcm" for shard in range(4)]
    reader = pickle.loads(pickle.dumps(ShardReader(tmp_path)))
    for (shard, offset), track in zip(places, tracks, strict=True):
        assert np.array_equal(reader.view(shard, offset, len(track)), track)


@pytest.mark.parametrize(
    "bad", [np.zeros(321, "<i2"), np.zeros(0, "<i2"), np.zeros((2, 320), "<i2"), np.zeros(320, "f4")]
)
def test_off_grid_tracks_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with ShardWriter(tmp_path, 1) as writer, pytest.raises(ValueError, match="expected int16"):
        writer.append(bad)


def test_reading_cannot_write_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 1) as writer:
        writer.append(np.zeros(320, "<i2"))
    reader = ShardReader(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        reader.view(0, 0, 320)[0] = 1
    with pytest.raises(MertError, match=r"00007.pcm"):
        reader.view(7, 0, 320)
