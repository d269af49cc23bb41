"""Each check of the label gate, on labels broken in exactly that way."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.config import Gate
from mert_core.targets.gate import Check, check_codebooks, check_lengths, count_codes, explain, render

ENTRIES = 32
LIMITS = Gate(min_usage=0.5, min_entropy_bits=3.0, max_top_share=0.3, max_drift_frames=1)
NOTHING = np.zeros((2, ENTRIES + 1), dtype=np.int64)


@pytest.fixture
def codes() -> NDArray[np.uint16]:
    """Good labels: two codebooks, all entries alike."""
    return np.random.default_rng(0).integers(ENTRIES, size=(4000, 2)).astype(np.uint16)


def failures(codes: NDArray[np.uint16]) -> list[Check]:
    checks = check_codebooks(count_codes(codes, ENTRIES), NOTHING, LIMITS)
    return [check for check in checks if not check.passed]


def test_good_labels_pass(codes: NDArray[np.uint16]) -> None:
    assert not failures(codes)


def test_too_few_entries_in_use(codes: NDArray[np.uint16]) -> None:
    codes[:, 1] %= 15  # 15 of 32 entries, evenly: 3.9 bits, top share 7 %
    assert [(check.where, check.check) for check in failures(codes)] == [("codebook 1", "usage")]


def test_too_little_entropy(codes: NDArray[np.uint16]) -> None:
    # Every entry occurs, but four of them, 24 % each, take nearly everything: 2.2 bits.
    codes[: int(len(codes) * 0.96), 0] %= 4
    codes[-ENTRIES:, 0] = np.arange(ENTRIES)
    assert [(check.where, check.check) for check in failures(codes)] == [("codebook 0", "entropy bits")]


def test_one_entry_takes_too_much(codes: NDArray[np.uint16]) -> None:
    codes[: int(len(codes) * 0.35), 0] = 7
    assert [(check.where, check.check) for check in failures(codes)] == [("codebook 0", "top share")]


def test_index_out_of_range(codes: NDArray[np.uint16]) -> None:
    codes[100, 1] = ENTRIES
    (failed,) = failures(codes)
    assert (failed.where, failed.check, failed.value) == ("codebook 1", "codes out of range", 1)


def test_index_out_of_range_in_another_split(codes: NDArray[np.uint16]) -> None:
    other = codes.copy()
    other[0, 0] = 65535
    checks = check_codebooks(count_codes(codes, ENTRIES), count_codes(other, ENTRIES), LIMITS)
    assert [check.where for check in checks if not check.passed] == ["codebook 0"]


def test_frames_and_seconds_drift_apart() -> None:
    seconds = np.array([10.0, 20.0, 4.0])
    (passed,) = check_lengths(["a", "b", "c"], np.array([750, 1501, 299]), seconds, LIMITS)
    assert passed.passed
    (failed,) = check_lengths(["a", "b", "c"], np.array([750, 1502, 300]), seconds, LIMITS)
    assert not failed.passed
    assert failed.where == "track b"
    assert failed.value == 2


def test_many_drifting_tracks_are_counted_not_listed() -> None:
    checks = check_lengths([str(row) for row in range(100)], np.zeros(100), np.ones(100), LIMITS)
    assert len(checks) == 6
    assert checks[-1].value == 100


def test_no_music_in_the_training_split_fails() -> None:
    checks = check_codebooks(NOTHING, NOTHING, LIMITS)
    assert {check.check for check in checks if not check.passed} == {"usage", "entropy bits"}


def test_table_and_advice_name_what_failed(codes: NDArray[np.uint16]) -> None:
    codes[:, 1] = 3
    checks = check_codebooks(count_codes(codes, ENTRIES), NOTHING, LIMITS)
    table = render(checks)
    assert "1 (<= 0.3)!" in next(line for line in table.splitlines() if "codebook 1" in line)
    assert "!" not in next(line for line in table.splitlines() if "codebook 0" in line)
    assert "codebook 1: usage is 0.03125, allowed >= 0.5; train the teacher longer" in explain(checks)
    assert "codebook 0" not in explain(checks)
