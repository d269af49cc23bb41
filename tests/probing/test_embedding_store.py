from __future__ import annotations

import pytest

from mert_core.errors import MertError
from mert_core.probing.embedding_store import MIN_SAMPLES, Windows, windows_of
from mert_core.probing.tasks import Chunking

SECOND = 24000
EMO = Chunking(seconds=5, limit_seconds=30)


@pytest.mark.parametrize(
    ("seconds", "chunking", "expected"),
    [
        (9, Chunking(seconds=3), [(0, 3), (3, 6), (6, 9)]),
        (7.5, Chunking(seconds=3), [(0, 3), (3, 6), (6, 7.5)]),
        (7.49, Chunking(seconds=3), [(0, 3), (3, 6)]),
        (3, Chunking(seconds=3), [(0, 3)]),
        (0.7, Chunking(seconds=3), [(0, 0.7)]),
        (4, Chunking(), [(0, 4)]),
        (45, EMO, [(start, start + 5) for start in range(0, 30, 5)]),
        (12, EMO, [(0, 5), (5, 10)]),
        (45, Chunking(limit_seconds=30), [(0, 30)]),
    ],
)
def test_windows_lie_side_by_side_up_to_the_limit_and_half_a_window_is_kept(seconds, chunking, expected) -> None:
    windows = windows_of(round(seconds * SECOND), chunking)
    assert windows is not None
    assert [(start / SECOND, stop / SECOND) for start, stop in windows.bounds().tolist()] == expected


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
    assert (found is None) == (length < MIN_SAMPLES)
    if found is not None:
        assert found.bounds().tolist() == expected
        assert len(found) == len(expected)


def test_windows_that_may_be_too_short_are_refused() -> None:
    with pytest.raises(MertError, match=r"0\.05 s; at least 0\.1 s"):
        windows_of(SECOND, Chunking(seconds=0.05))
