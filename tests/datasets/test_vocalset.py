"""VocalSet's two layouts, its divisions and faults, and the silence that is cut out of its recordings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.audio.errors import UnusableAudio
from mert_core.datasets import vocalset
from mert_core.datasets.base import SPLITS
from mert_core.datasets.reading import EMPTY
from mert_core.datasets.sounds import FileSound
from mert_core.datasets.vocalset import (
    FURTHER_TECHNIQUES,
    SINGERS,
    TECHNIQUES,
    TEST_SINGERS,
    VALID_SINGERS,
    Trimmed,
    VocalSet,
    sounding,
)
from mert_core.errors import MertError
from tests.datasets.miniatures import write_vocalset

VOCALSET = VocalSet()
LEFT_OUT = {
    "unknown technique": 1,
    "copy of another recording": 2,
    "not in the paper's table": 1,
    "folder and file name give different singers": 1,
}


@pytest.fixture
def folder(made: Callable[[str], Path]) -> Path:
    return made("vocalset")


def test_validation_singers_are_chosen_as_said() -> None:
    rest = [singer for singer in SINGERS if singer not in TEST_SINGERS]
    for kind in "fm":
        of = sorted((s for s in rest if s[0] == kind), key=lambda s: hashlib.sha256(s.encode()).hexdigest())
        assert set(of[:3]) == {singer for singer in VALID_SINGERS if singer[0] == kind}
    assert len(SINGERS) == 20 and len(TECHNIQUES) == 10 and len(FURTHER_TECHNIQUES) == 7


def test_techniques_of_unseen_singers(folder: Path) -> None:
    clips = VOCALSET.read(folder, "technique")
    assert clips.classes == TECHNIQUES and clips.left_out == LEFT_OUT
    assert len(clips.clips) == 20 * 6 + 1
    assert {clip.artist for clip in clips.of("test")} == set(TEST_SINGERS)
    assert {clip.artist for clip in clips.of("valid")} == set(VALID_SINGERS)
    assert len({clip.artist for clip in clips.of("train")}) == 9
    assert Counter(clip.label for clip in clips.clips) == {"vibrato": 60, "belt": 60, "straight": 1}
    assert [c.artist for c in clips.clips if c.clip_id == "female4/scales/straight/scales_straight_a.wav"] == ["f4"]
    assert not any("vibrado" in clip.clip_id or "caro" in clip.clip_id for clip in clips.clips)


def test_singers_have_12_8_5_of_their_recordings(tmp_path: Path) -> None:
    vowels = "abcdefghijklmnopqrstuvwxy"  # 25 recordings of each technique
    folder = write_vocalset(tmp_path, vowels=vowels, singers=("female5", "male3", "male7"))
    clips = VOCALSET.read(folder, "singer")
    assert clips.classes == SINGERS and clips.left_out == LEFT_OUT
    of = Counter((clip.label, clip.split) for clip in clips.clips)
    assert [of["m7", split] for split in SPLITS] == [36, 24, 15]
    assert {singer for singer, _ in of} == {"f4", "f5", "m3", "m7"}
    assert any("messa" in clip.clip_id for clip in clips.clips)
    of_f5 = {clip.clip_id: clip.split for clip in clips.clips if clip.label == "f5"}
    order = sorted(of_f5, key=lambda name: hashlib.sha256(name.encode()).digest())
    assert [of_f5[name] for name in order] == ["train"] * 36 + ["valid"] * 24 + ["test"] * 15


def test_silence_is_taken_out(folder: Path) -> None:
    clip = VOCALSET.read(folder, "technique").clips[0]
    whole = FileSound(folder / "FULL" / clip.clip_id)
    assert len(whole.waveform()) == round(0.15 * 24000)
    assert np.array_equal(clip.sound.waveform(), whole.waveform()[960:])  # two windows of 20 ms; the third has sound
    assert clip.sound.identity != whole.identity


@pytest.mark.parametrize("root", ["data_by_singer", "VocalSet1-2/data_by_singer", "."])
def test_other_places(tmp_path: Path, root: str) -> None:
    moved = write_vocalset(tmp_path, root, vowels="a")
    clips = VOCALSET.read(moved, "technique")
    assert len(clips.clips) == 41 and clips.left_out == LEFT_OUT


def test_survey(folder: Path, tmp_path: Path) -> None:
    found = VOCALSET.survey(folder)
    assert "181 recordings" in found.notes[0] and "Left out: 2 (copy of another recording)." in found.notes
    quick = VOCALSET.survey(folder, quick=True)
    assert "Left out: 1 (copy of another recording)." in quick.notes
    (tmp_path / "FULL" / "female1").mkdir(parents=True)
    few = VOCALSET.survey(tmp_path)
    assert few.counts["singers"] == (0, 20) and "No recording of f1, f2" in few.notes[1]


def test_recordings_without_bytes_are_left_out(copied: Callable[[str], Path]) -> None:
    folder = copied("vocalset")
    for vowel in "ae":  # two, which are no copies of one another
        (folder / f"FULL/female1/scales/belt/f1_scales_belt_{vowel}.wav").write_bytes(b"")
    assert VOCALSET.read(folder, "technique").left_out == LEFT_OUT | {EMPTY: 2}
    for quick in (False, True):
        found = VOCALSET.survey(folder, quick)
        assert found.damaged == 2 and "2 recording(s) have no bytes; unpack the archive again." in found.notes


def test_a_folder_in_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="has no VocalSet: expected FULL/SINGER"):
        VOCALSET.read(tmp_path, "singer")


RATE = 24000


@dataclass(frozen=True)
class Given:
    """A sound that is given."""

    sound: NDArray[np.float32]
    identity: str = "a"

    def waveform(self) -> NDArray[np.float32]:
        return self.sound.mean(axis=0)

    def channels(self) -> NDArray[np.float32]:
        return self.sound


def tone(seconds: float, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def by_hand(waveform: NDArray[np.float32], threshold: float, size: int, pause: int) -> list[bool]:
    """The rule again, window by window: quiet ones between loud ones stay where they are fewer than a pause."""
    windows = [waveform[start : start + size] for start in range(0, len(waveform), size)]
    power = [sum(float(value) ** 2 for value in window) / len(window) for window in windows]
    loud = [10 * np.log10(max(value, 1e-30) / max(power)) >= -threshold for value in power]
    kept: list[bool] = []
    for is_loud, run in groupby(loud):
        count = len(list(run))
        inside = 0 < len(kept) < len(loud) - count
        kept += [is_loud or (inside and count < pause)] * count
    return [flag for flag, window in zip(kept, windows, strict=True) for _ in window]


def test_leading_trailing_and_long_pauses_go_and_short_ones_stay() -> None:
    parts = [tone(0.5, 0.0), tone(1.0), tone(0.2, 0.001), tone(0.4), tone(0.6, 0.001), tone(0.3), tone(0.7, 0.0)]
    kept = sounding(np.concatenate(parts))
    wanted = np.repeat([False, True, True, True, False, True, False], [len(part) for part in parts])
    assert np.array_equal(kept, wanted)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_rule_by_hand(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    levels = np.repeat(10.0 ** rng.uniform(-3, 0, 40), 300)
    waveform = (levels * rng.standard_normal(12000)).astype(np.float32)[: 12000 - 37 * seed]
    for name, value in (("THRESHOLD_DB", 25.0), ("WINDOW_SECONDS", 0.005), ("PAUSE_SECONDS", 0.03)):
        monkeypatch.setattr(vocalset, name, value)
    assert sounding(waveform).tolist() == by_hand(waveform, 25.0, 120, 6)


def test_the_threshold_is_relative_to_the_loudest_window() -> None:
    waveform = np.concatenate([tone(0.48), tone(0.48, 0.5 * 10 ** (-39.5 / 20)), tone(0.48, 0.5 * 10 ** (-40.5 / 20))])
    assert sounding(waveform).sum() == 2 * len(tone(0.48))
    assert np.array_equal(sounding(waveform), sounding(waveform / 20))


def test_all_channels_are_cut_alike() -> None:
    left, right = np.concatenate([tone(0.5, 0.0), tone(0.5)]), np.concatenate([tone(0.5, 0.0), -0.2 * tone(0.5)])
    trimmed = Trimmed(Given(np.stack([left, right])))
    assert np.array_equal(trimmed.channels(), np.stack([left[12000:], right[12000:]]))
    assert np.array_equal(trimmed.waveform(), trimmed.channels().mean(axis=0))


def test_identity_tells_sound_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Given(np.zeros((1, 10), np.float32))
    one = Trimmed(sound).identity
    assert len(one) == 64 and one == Trimmed(sound).identity != sound.identity
    assert one != Trimmed(Given(sound.sound, "b")).identity
    monkeypatch.setattr(vocalset, "THRESHOLD_DB", 41.0)
    assert one != Trimmed(sound).identity


@pytest.mark.parametrize("waveform", [np.zeros(5000), np.full(5000, 0.3), np.zeros(0)])
def test_silence_from_end_to_end_is_refused(waveform: NDArray[np.float64]) -> None:
    with pytest.raises(UnusableAudio, match="silent"):
        Trimmed(Given(waveform.astype(np.float32)[None])).waveform()
