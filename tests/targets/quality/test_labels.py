"""Each check over labels, on labels broken in exactly that way."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.config import GateConfig
from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.targets.label import ShardTracks
from mert_core.targets.quality import (
    Check,
    check_bins,
    check_codebooks,
    check_invalid,
    check_lengths,
    check_teachers,
    explain,
    render,
)
from mert_core.targets.shards import Arrays, add_statistics, empty_statistics, target_statistics
from tests.targets.quality.conftest import IDS, tracks

ENTRIES = 32
NOTHING = np.zeros((2, ENTRIES + 1), dtype=np.int64)  # counts of two codebooks without a frame


@pytest.fixture
def codes() -> NDArray[np.uint16]:
    """Good labels: two codebooks, all entries alike."""
    return np.random.default_rng(0).integers(ENTRIES, size=(4000, 2)).astype(np.uint16)


@pytest.fixture
def spectrum() -> NDArray[np.float16]:
    """A good spectrum of 8 bins, two tracks of 100 frames."""
    return np.random.default_rng(0).gamma(2.0, 1.0, size=(200, 8)).astype(np.float16)


def count_codes(codes: NDArray[np.uint16], entries: int) -> NDArray[np.int64]:
    """Return how often each value occurs, int64 (codebooks, entries + 1); the last column is what is out of range."""
    clipped = np.minimum(codes, entries).astype(np.int64)
    return np.stack([np.bincount(clipped[:, book], minlength=entries + 1) for book in range(codes.shape[1])])


def failures(codes: NDArray[np.uint16], limits: GateConfig) -> list[Check]:
    checks = check_codebooks(np.stack([count_codes(codes, ENTRIES), NOTHING]), limits)
    return [check for check in checks if not check.passed]


def statistics(kind: TargetKind, targets: NDArray[np.generic], splits: tuple[int, int] = (0, 0)) -> Arrays:
    """Return a shard's statistics: two tracks of equal length."""
    samples = np.full(2, len(targets) // 2 * 320)
    plan = ShardTracks(0, "", np.arange(2), np.array([0, samples[0]]), samples)
    return target_statistics(kind, targets, plan, np.array(splits, dtype=np.int8))


def test_good_labels_pass(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    assert not failures(codes, limits)


def test_too_few_entries_in_use(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    codes[:, 1] %= 15  # 15 of 32 entries, evenly: 3.9 bits, top share 7 %
    assert [(check.where, check.check) for check in failures(codes, limits)] == [("codebook 1", "usage")]


def test_too_little_entropy(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    # Every entry occurs, but four of them, 24 % each, take nearly everything: 2.2 bits.
    codes[: int(len(codes) * 0.96), 0] %= 4
    codes[-ENTRIES:, 0] = np.arange(ENTRIES)
    assert [(check.where, check.check) for check in failures(codes, limits)] == [("codebook 0", "entropy bits")]


def test_one_entry_takes_too_much(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    codes[: int(len(codes) * 0.35), 0] = 7
    assert [(check.where, check.check) for check in failures(codes, limits)] == [("codebook 0", "top share")]


def test_index_out_of_range(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    codes[100, 1] = ENTRIES
    (failed,) = failures(codes, limits)
    assert (failed.where, failed.check, failed.value) == ("codebook 1", "codes out of range", 1)


def test_index_out_of_range_in_another_split(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    other = codes.copy()
    other[0, 0] = 65535
    checks = check_codebooks(np.stack([count_codes(one, ENTRIES) for one in (codes, other)]), limits)
    assert [check.where for check in checks if not check.passed] == ["codebook 0"]


def test_a_track_with_codes_out_of_range_is_named(codes: NDArray[np.uint16]) -> None:
    codes[3000, 1] = ENTRIES + 5
    figures = statistics(Codes(2, ENTRIES), codes)
    assert figures["invalid"].tolist() == [0, 1]
    (failed,) = check_invalid(tracks(IDS[:2], invalid=figures["invalid"]), "codes out of range")
    assert not failed.passed and failed.where == "track bert" and "run `mert targets`" in failed.advice


def test_statistics_by_split_add_up(codes: NDArray[np.uint16]) -> None:
    total = empty_statistics(Codes(2, ENTRIES))
    add_statistics(total, statistics(Codes(2, ENTRIES), codes[:1000], (0, 1)))
    add_statistics(total, statistics(Codes(2, ENTRIES), codes[1000:], (1, 0)))
    assert np.array_equal(total["counts"][0], count_codes(np.r_[codes[:500], codes[2500:]], ENTRIES))
    assert np.array_equal(total["counts"][1], count_codes(codes[500:2500], ENTRIES))


def test_a_good_spectrum_passes(spectrum: NDArray[np.float16], limits: GateConfig) -> None:
    assert all(check.passed for check in check_bins(statistics(Spectrum(8), spectrum), limits))


def test_a_dead_bin(spectrum: NDArray[np.float16], limits: GateConfig) -> None:
    spectrum[:, 3] = 0.7
    (failed,) = [check for check in check_bins(statistics(Spectrum(8), spectrum), limits) if not check.passed]
    assert (failed.check, failed.where, failed.value) == ("dead bins", "bins 3", 1 / 8)


def test_a_bin_that_lives_in_validation_alone_is_dead(spectrum: NDArray[np.float16], limits: GateConfig) -> None:
    spectrum[:100, 3] = 0.7
    assert not check_bins(statistics(Spectrum(8), spectrum, (0, 1)), limits)[0].passed


def test_values_beyond_the_range(spectrum: NDArray[np.float16], limits: GateConfig) -> None:
    spectrum[150, 2] = -2000.0
    (failed,) = [check for check in check_bins(statistics(Spectrum(8), spectrum), limits) if not check.passed]
    assert (failed.check, failed.value) == ("largest magnitude", 2000.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_track_with_values_that_are_not_finite_is_named(
    spectrum: NDArray[np.float16], limits: GateConfig, value: float
) -> None:
    spectrum[150, 2] = value
    figures = statistics(Spectrum(8), spectrum)
    (failed,) = check_invalid(tracks(IDS[:2], invalid=figures["invalid"]), "values that are not finite")
    assert (failed.where, failed.value, failed.passed) == ("track bert", 1, False)
    assert all(check.passed for check in check_bins(figures, limits))  # the others are judged without it


def test_frames_and_seconds_drift_apart(limits: GateConfig) -> None:
    seconds = np.array([10.0, 20.0, 4.0])
    (passed,) = check_lengths(tracks(IDS[:3], frames=[750, 1501, 299], seconds=seconds), limits)
    assert passed.passed
    (failed,) = check_lengths(tracks(IDS[:3], frames=[750, 1502, 300], seconds=seconds), limits)
    assert not failed.passed
    assert failed.where == "track bert"
    assert failed.value == 2


def test_many_drifting_tracks_are_counted_not_listed(limits: GateConfig) -> None:
    checks = check_lengths(tracks([str(row) for row in range(100)], frames=np.zeros(100), seconds=np.ones(100)), limits)
    assert len(checks) == 6
    assert checks[-1].value == 100


def test_another_teacher_labeled_a_shard() -> None:
    assert check_teachers({"00000.codes": "a" * 64, "00001.codes": "a" * 64}, "rvqvae", "a" * 64)[0].passed
    (failed,) = check_teachers({"00000.codes": "a" * 64, "00001.codes": "b" * 64}, "rvqvae", "a" * 64)
    assert failed.where == "shard 00001.codes" and not failed.passed
    assert "labelled by bbbbbbbbbbbb" in failed.advice and "rvqvae (aaaaaaaaaaaa" in failed.advice


def test_no_music_in_the_training_split_fails(limits: GateConfig) -> None:
    checks = check_codebooks(np.stack([NOTHING, NOTHING]), limits)
    assert {check.check for check in checks if not check.passed} == {"usage", "entropy bits"}


def test_table_and_advice_name_what_failed(codes: NDArray[np.uint16], limits: GateConfig) -> None:
    codes[:, 1] = 3
    checks = check_codebooks(np.stack([count_codes(codes, ENTRIES), NOTHING]), limits)
    table = render(checks)
    assert "1 (<= 0.3)!" in next(line for line in table.splitlines() if "codebook 1" in line)
    assert "!" not in next(line for line in table.splitlines() if "codebook 0" in line)
    assert "codebook 1: usage is 0.03125, allowed >= 0.5; train the teacher longer" in explain(checks)
    assert "codebook 0" not in explain(checks)
