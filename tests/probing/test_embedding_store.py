from __future__ import annotations

import pytest

from mert_core.errors import MertError
from mert_core.probing.embedding_store import MIN_SAMPLES, Windows, windows_of
from mert_core.probing.tasks import Chunking

SECOND = 24000


def seconds(samples: float, chunking: Chunking) -> list[tuple[float, float]]:
    windows = windows_of(round(samples * SECOND), chunking)
    assert windows is not None
    return [(start / SECOND, stop / SECOND) for start, stop in windows.bounds().tolist()]


def test_windows_lie_side_by_side_and_half_a_window_is_kept() -> None:
    by_three = Chunking(seconds=3)
    assert seconds(9, by_three) == [(0, 3), (3, 6), (6, 9)]
    assert seconds(7.5, by_three) == [(0, 3), (3, 6), (6, 7.5)]
    assert seconds(7.49, by_three) == [(0, 3), (3, 6)]
    assert seconds(3, by_three) == [(0, 3)]


def test_a_short_clip_is_one_window_of_its_own_length() -> None:
    assert seconds(0.7, Chunking(seconds=3)) == [(0, 0.7)]
    assert seconds(4, Chunking()) == [(0, 4)]


def test_the_limit_comes_first() -> None:
    emo = Chunking(seconds=5, limit_seconds=30)
    assert len(seconds(45, emo)) == 6
    assert seconds(45, emo)[-1] == (25, 30)
    assert seconds(12, emo) == [(0, 5), (5, 10)]
    assert seconds(45, Chunking(limit_seconds=30)) == [(0, 30)]


def test_equal_cuts_are_equal_whatever_asks_for_them() -> None:
    four = 4 * SECOND
    assert windows_of(four, Chunking(seconds=30)) == windows_of(four, Chunking()) == Windows(four, four)
    assert windows_of(40 * SECOND, Chunking(seconds=30)) == windows_of(40 * SECOND, Chunking(limit_seconds=30))
    assert windows_of(45 * SECOND, Chunking(seconds=30)) != windows_of(45 * SECOND, Chunking())


@pytest.mark.parametrize("length", [1, 1199, 1200, 35_999, 36_000, 71_999, 100_000, 720_000])
@pytest.mark.parametrize("chunking", [Chunking(), Chunking(3.0), Chunking(5.0, 30.0), Chunking(limit_seconds=2.0)])
def test_against_the_rule_in_plain_words(length: int, chunking: Chunking) -> None:
    end = min(length, round((chunking.limit_seconds or 1e9) * SECOND))
    size = round((chunking.seconds or 1e9) * SECOND)
    expected = [[start, min(start + size, end)] for start in range(0, end, size)]
    if len(expected) > 1 and expected[-1][1] - expected[-1][0] < size / 2:
        expected.pop()
    found = windows_of(length, chunking)
    if length < MIN_SAMPLES:
        assert found is None
    else:
        assert found is not None
        assert found.bounds().tolist() == expected
        assert len(found) == len(expected)


def test_windows_that_may_be_too_short_are_refused() -> None:
    with pytest.raises(MertError, match=r"0\.05 s; at least 0\.1 s"):
        windows_of(SECOND, Chunking(seconds=0.05))
