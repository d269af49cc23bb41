"""Each check of the gate, on labels and music broken in exactly that way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from numpy.typing import NDArray

from mert_core.audio.decode import resample
from mert_core.audio.grid import HOP_SAMPLES
from mert_core.config import GateConfig
from mert_core.data.shards import to_int16
from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.targets import quality
from mert_core.targets.label import ShardTracks
from mert_core.targets.quality import Check
from mert_core.targets.shards import Arrays, add_statistics, empty_statistics, target_statistics
from mert_core.targets.track_stats import (
    ALIKE_NUMBERS,
    EMPTY,
    fingerprint,
    measure_track,
    spectrum_decibels,
    wall_hertz,
)

IDS = ["anna", "bert", "carl", "dora"]
TRAIN, VALID = 0, 1
SPLIT = [TRAIN, TRAIN, VALID, VALID]
RATE = 24000
ENTRIES = 32
NOTHING = np.zeros((2, ENTRIES + 1), dtype=np.int64)  # counts of two codebooks without a frame
LIMITS = GateConfig(
    min_usage=0.5,
    min_entropy_bits=3.0,
    max_top_share=0.3,
    max_magnitude=100.0,
    max_upsampled=0.2,
    max_silent_tracks=0.2,
    max_alike=0.0,
    shared_artists="stop",
)


def tracks(ids: list[str] | None = None, **columns: Any) -> pa.Table:
    """Return a table of tracks with the columns that a check looks at."""
    return pa.table({"track_id": ids or IDS, **columns})


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.passed]


# Labels


@pytest.fixture
def codes() -> NDArray[np.uint16]:
    """Good labels: two codebooks, all entries alike."""
    return np.random.default_rng(0).integers(ENTRIES, size=(4000, 2)).astype(np.uint16)


@pytest.fixture
def spectrum() -> NDArray[np.float16]:
    """A good spectrum of 8 bins, two tracks of 100 frames."""
    return np.random.default_rng(0).gamma(2.0, 1.0, size=(200, 8)).astype(np.float16)


def count_codes(codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return how often each value occurs, int64 (codebooks, entries + 1); the last column is what is out of range."""
    clipped = np.minimum(codes, ENTRIES).astype(np.int64)
    return np.stack([np.bincount(clipped[:, book], minlength=ENTRIES + 1) for book in range(codes.shape[1])])


def check_codes(train: NDArray[np.int64], valid: NDArray[np.int64] = NOTHING) -> list[Check]:
    return quality.check_codebooks(np.stack([train, valid]), LIMITS)


def statistics(kind: TargetKind, targets: NDArray[np.generic], splits: tuple[int, int] = (0, 0)) -> Arrays:
    """Return a shard's statistics: two tracks of equal length."""
    samples = np.full(2, len(targets) // 2 * 320)
    plan = ShardTracks(0, "", np.arange(2), np.array([0, samples[0]]), samples)
    return target_statistics(kind, targets, plan, np.array(splits, dtype=np.int8))


def few_entries(codes: NDArray[np.uint16]) -> None:
    codes[:, 1] %= 15  # 15 of 32 entries, evenly: 3.9 bits, top share 7 %


def little_entropy(codes: NDArray[np.uint16]) -> None:
    # Every entry occurs, but four of them, 24 % each, take nearly everything: 2.3 bits.
    codes[: int(len(codes) * 0.96), 0] %= 4
    codes[-ENTRIES:, 0] = np.arange(ENTRIES)


def one_takes_much(codes: NDArray[np.uint16]) -> None:
    codes[: int(len(codes) * 0.35), 0] = 7


def out_of_range(codes: NDArray[np.uint16]) -> None:
    codes[100, 1] = ENTRIES


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda codes: None, []),
        (few_entries, [("codebook 1", "usage", 15 / 32)]),
        (little_entropy, [("codebook 0", "entropy bits", pytest.approx(2.33, abs=0.01))]),
        (one_takes_much, [("codebook 0", "top share", pytest.approx(0.37, abs=0.01))]),
        (out_of_range, [("codebook 1", "codes out of range", 1)]),
    ],
)
def test_bad_codebooks_are_named(
    codes: NDArray[np.uint16], damage: Callable[[NDArray[np.uint16]], None], expected: list[tuple[str, str, float]]
) -> None:
    damage(codes)
    bad = failed(check_codes(count_codes(codes)))
    assert [(check.where, check.check, check.value) for check in bad] == expected


def test_index_out_of_range_in_another_split(codes: NDArray[np.uint16]) -> None:
    other = codes.copy()
    other[0, 0] = 65535
    assert [check.where for check in failed(check_codes(count_codes(codes), count_codes(other)))] == ["codebook 0"]


def test_no_music_in_the_training_split_fails() -> None:
    assert {check.check for check in failed(check_codes(NOTHING))} == {"usage", "entropy bits"}


def test_a_track_with_codes_out_of_range_is_named(codes: NDArray[np.uint16]) -> None:
    codes[3000, 1] = ENTRIES + 5
    invalid = statistics(Codes(2, ENTRIES), codes)["invalid"]
    assert invalid.tolist() == [0, 1]
    (bad,) = quality.check_invalid(tracks(IDS[:2], invalid=invalid), "codes out of range")
    assert not bad.passed and bad.where == "track bert" and "run `mert targets`" in bad.advice


def test_statistics_by_split_add_up(codes: NDArray[np.uint16]) -> None:
    total = empty_statistics(Codes(2, ENTRIES))
    add_statistics(total, statistics(Codes(2, ENTRIES), codes[:1000], (0, 1)))
    add_statistics(total, statistics(Codes(2, ENTRIES), codes[1000:], (1, 0)))
    assert np.array_equal(total["counts"][0], count_codes(np.r_[codes[:500], codes[2500:]]))
    assert np.array_equal(total["counts"][1], count_codes(codes[500:2500]))


@pytest.mark.parametrize(
    ("where", "value", "splits", "expected"),
    [
        (None, 0.0, (0, 0), []),
        (np.s_[:, 3], 0.7, (0, 0), [("dead bins", "bins 3", 1 / 8)]),
        (np.s_[:100, 3], 0.7, (0, 1), [("dead bins", "bins 3", 1 / 8)]),  # it lives in validation alone
        (np.s_[150, 2], -2000.0, (0, 0), [("largest magnitude", "all tracks", 2000.0)]),
    ],
)
def test_bad_bins_are_named(
    spectrum: NDArray[np.float16], where: Any, value: float, splits: tuple[int, int], expected: list[Any]
) -> None:
    if where is not None:
        spectrum[where] = value
    bad = failed(quality.check_bins(statistics(Spectrum(8), spectrum, splits), LIMITS))
    assert [(check.check, check.where, check.value) for check in bad] == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_track_with_values_that_are_not_finite_is_named(spectrum: NDArray[np.float16], value: float) -> None:
    spectrum[150, 2] = value
    figures = statistics(Spectrum(8), spectrum)
    (bad,) = quality.check_invalid(tracks(IDS[:2], invalid=figures["invalid"]), "values that are not finite")
    assert (bad.where, bad.value, bad.passed) == ("track bert", 1, False)
    assert not failed(quality.check_bins(figures, LIMITS)), "the others are judged without it"


def test_frames_and_seconds_drift_apart() -> None:
    seconds = np.array([10.0, 20.0, 4.0])
    (passed,) = quality.check_lengths(tracks(IDS[:3], frames=[750, 1501, 299], seconds=seconds), LIMITS)
    assert passed.passed
    (bad,) = quality.check_lengths(tracks(IDS[:3], frames=[750, 1502, 300], seconds=seconds), LIMITS)
    assert (bad.where, bad.value, bad.passed) == ("track bert", 2, False)
    many = tracks([str(row) for row in range(100)], frames=np.zeros(100), seconds=np.ones(100))
    checks = quality.check_lengths(many, LIMITS)
    assert len(checks) == 6 and checks[-1].value == 100, "many tracks are counted, not listed"


def test_another_teacher_labeled_a_shard() -> None:
    assert quality.check_teachers({"00000.codes": "a" * 64, "00001.codes": "a" * 64}, "rvqvae", "a" * 64)[0].passed
    (bad,) = quality.check_teachers({"00000.codes": "a" * 64, "00001.codes": "b" * 64}, "rvqvae", "a" * 64)
    assert bad.where == "shard 00001.codes" and not bad.passed
    assert "labelled by bbbbbbbbbbbb" in bad.advice and "rvqvae (aaaaaaaaaaaa" in bad.advice


def test_table_and_advice_name_what_failed(codes: NDArray[np.uint16]) -> None:
    codes[:, 1] = 3
    checks = check_codes(count_codes(codes))
    table = quality.render(checks)
    assert "1 (<= 0.3)!" in next(line for line in table.splitlines() if "codebook 1" in line)
    assert "!" not in next(line for line in table.splitlines() if "codebook 0" in line)
    assert "codebook 1: usage is 0.03125, allowed >= 0.5; train the teacher longer" in quality.explain(checks)
    assert "codebook 0" not in quality.explain(checks)


# Sound


def noise(seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate)).astype(np.float32)


def wall(waveform: np.ndarray) -> float:
    return wall_hertz(spectrum_decibels(to_int16(waveform)[0]))


def test_seconds_of_another_rate() -> None:
    samples = np.array([240_000, 240_000, 72_000, 96_000])
    assert quality.check_rate(tracks(samples=samples, seconds=samples / RATE))[0].passed
    seconds = samples / RATE
    seconds[1] = samples[1] / 16_000
    (bad,) = quality.check_rate(tracks(samples=samples, seconds=seconds))
    assert (bad.where, bad.value, bad.passed) == ("track bert", 16_000, False)
    assert "remake the corpus" in bad.advice


def test_the_manifest_points_at_other_audio() -> None:
    assert quality.check_content(tracks(same_audio=np.ones(4, dtype=bool)))[0].passed
    (bad,) = quality.check_content(tracks(same_audio=np.array([True, True, False, True])))
    assert bad.where == "track carl" and not bad.passed and "dvc checkout data/corpus" in bad.advice
    pcm = to_int16(noise())[0]
    assert measure_track(0, pcm)["sha256"].tobytes() == hashlib.sha256(pcm.tobytes()).digest()


@pytest.mark.parametrize(("rate", "lowest", "highest"), [(8000, 3700, 4100), (11025, 5000, 5600)])
def test_music_from_a_lower_rate_ends_in_a_wall(rate: int, lowest: float, highest: float) -> None:
    assert lowest < wall(resample(noise(rate=rate), rate)) < highest


def test_music_of_the_true_rate_ends_in_no_wall() -> None:
    time = np.arange(4 * RATE) / RATE
    tone = 0.4 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    harmonics = sum(0.2 / number * np.sin(2 * np.pi * 1760 * number * time) for number in range(1, 4))
    dull = np.cumsum(noise()) / 100  # brown noise: 6 dB less with every octave
    assert [wall(waveform) for waveform in (noise(), tone, harmonics.astype(np.float32), dull - dull.mean())] == [0] * 4


def test_upsampled_tracks_are_named_with_both_rates() -> None:
    music = tracks(
        wall_hertz=np.array([0, 3900, 0, 3900], dtype=np.float32), source_rate=[44_100, 44_100, 48_000, 8000]
    )
    share, named = quality.check_bandwidth(music, LIMITS)
    assert share.value == 0.25 and not share.passed  # the last one's source is honest
    assert named.where == "track bert" and named.value == pytest.approx(0.325)
    assert "resampled from 8,000 Hz, but its source claims 44,100 Hz" in named.advice
    (few,) = quality.check_bandwidth(music, LIMITS.model_copy(update={"max_upsampled": 0.25}))
    assert few.passed


def test_silence_in_all_and_by_track() -> None:
    music = to_int16(noise())[0]
    quiet = music.copy()
    quiet[: len(quiet) * 97 // 100 // HOP_SAMPLES * HOP_SAMPLES] //= 1000  # 3 steps of 16 bits: -80 dB
    silent = np.array([int(measure_track(0, pcm)["silent_frames"]) for pcm in (music, music, quiet, music)])
    frames = np.full(4, len(music) // HOP_SAMPLES)
    table = tracks(silent_frames=silent, frames=frames)
    assert silent[0] == 0 and 0.96 < silent[2] / frames[2] < 0.98
    whole, share, named = quality.check_silence(table, LIMITS)
    assert whole.passed and not share.passed and share.value == 0.25
    assert named.where == "track carl" and not named.passed and "listen" in named.advice
    whole, *_ = quality.check_silence(table, LIMITS.model_copy(update={"max_silence": 0.2}))
    assert not whole.passed and whole.value == pytest.approx(silent[2] / frames.sum())


# Other music to validate on


def tune(seed: int, seconds: int = 12) -> np.ndarray:
    """Notes of random pitch and length with decaying harmonics."""
    generator, parts = np.random.default_rng(seed), []
    while sum(map(len, parts)) < seconds * RATE:
        length = int(generator.uniform(0.12, 0.5) * RATE)
        time, pitch = np.arange(length) / RATE, 220 * 2 ** (generator.integers(0, 25) / 12)
        overtones = sum(np.sin(2 * np.pi * pitch * number * time) / number for number in range(1, 6))
        parts.append(0.2 * overtones * np.exp(-4 * time))
    hiss = 1e-3 * generator.standard_normal(seconds * RATE)
    return (np.concatenate(parts)[: seconds * RATE] + hiss).astype(np.float32)


def as_mp3(waveform: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    stream.seek(0)
    return soundfile.read(stream, dtype="float32")[0]


def test_the_same_audio_in_two_splits() -> None:
    digests = np.array([7, 8, 9, 7], dtype=np.uint64)
    assert quality.check_duplicates(tracks(digest=digests, split=[TRAIN, TRAIN, VALID, TRAIN]))[0].passed
    (bad,) = quality.check_duplicates(tracks(digest=digests, split=SPLIT))
    assert bad.where == "tracks anna (train) and dora (valid)" and not bad.passed
    assert "remove one of the two" in bad.advice


def test_the_same_recording_encoded_again_and_shifted() -> None:
    prints = [fingerprint(to_int16(tune(seed))[0]) for seed in range(3)]
    copy = fingerprint(to_int16(0.7 * as_mp3(tune(1))[5003:])[0])
    train = [(np.array([0]), np.stack(prints[:1])), (np.array([1]), np.stack(prints[1:2]))]
    other = [(np.array([2, 3]), np.stack([prints[2], copy]))]
    share, named = quality.check_alike(tracks(split=SPLIT), other, train, LIMITS)
    assert share.value == 0.5 and not share.passed
    assert named.where == "tracks bert (train) and dora (valid)" and named.value >= ALIKE_NUMBERS
    (passed,) = quality.check_alike(tracks(split=SPLIT), other, train[:1], LIMITS)
    assert passed.passed and passed.value == 0
    assert quality.check_alike(tracks(split=SPLIT), [], train, LIMITS)[0].passed


def test_tracks_without_peaks_are_not_alike() -> None:
    empty = fingerprint(np.ones(48_000, dtype=np.int16))
    assert (empty == EMPTY).all()
    sides = [(np.array([0]), empty[None])], [(np.array([2]), empty[None])]
    assert quality.check_alike(tracks(split=SPLIT), *sides, LIMITS)[0].passed


@pytest.mark.parametrize("shift", [1, 512, 30_000])
def test_a_fingerprint_survives_a_shift(shift: int) -> None:
    waveform = to_int16(tune(5))[0]
    assert len(np.intersect1d(fingerprint(waveform), fingerprint(waveform[shift:]))) >= ALIKE_NUMBERS


def test_one_artist_in_two_splits() -> None:
    good, bad = (tracks(split=SPLIT, artist=list(artists)) for artists in ("xxyz", "xyyz"))
    assert quality.check_artists(good, LIMITS)[0].passed
    (shared,) = quality.check_artists(bad, LIMITS)
    assert shared.where == "artist y (train and valid)" and not shared.passed
    assert "split by artist" in shared.advice
    (allowed,) = quality.check_artists(bad, LIMITS.model_copy(update={"shared_artists": "allow"}))
    assert allowed.passed and allowed.value == 1
