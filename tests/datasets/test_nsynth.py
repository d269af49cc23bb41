"""NSynth's layout, its labels and what is wrong with a copy."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mert_core.datasets.nsynth import FAMILIES, NSynth, _read_labels
from mert_core.datasets.reading import ABSENT, EMPTY
from mert_core.errors import MertError
from tests.datasets.miniatures import write_nsynth

NSYNTH = NSynth()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_nsynth(tmp_path, per_class=(3, 2, 1), seconds=0.3)


def test_reads_the_official_division(folder: Path) -> None:
    clips = NSYNTH.read(folder, "pitch")
    assert [len(clips.of(split)) for split in ("train", "valid", "test")] == [12, 8, 4]
    assert clips.classes == tuple(str(number) for number in range(128)) and clips.left_out == {ABSENT: 1}
    assert {clip.label for clip in clips.clips} == {"48", "55", "60", "67"}
    assert all(int(clip.clip_id.split("-")[1]) == int(clip.label) for clip in clips.clips)
    families = NSYNTH.read(folder, "instrument")
    assert families.classes == FAMILIES and len(FAMILIES) == 11
    assert all(clip.clip_id.startswith(clip.label) for clip in families.clips)
    assert [clip.clip_id for clip in families.clips] == [clip.clip_id for clip in clips.clips]


def test_notes_sound_at_their_pitch(folder: Path) -> None:
    for clip in NSYNTH.read(folder, "pitch").of("test"):
        waveform = clip.sound.waveform()
        assert len(waveform) == round(0.3 * 24000)
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 17))
        hertz = 440 * 2 ** ((int(clip.label) - 69) / 12)
        low, high = (round(hertz * ratio / 24000 * (1 << 17)) for ratio in (0.8, 1.25))
        assert low + spectrum[low:high].argmax() == pytest.approx(hertz / 24000 * (1 << 17), rel=0.02)


def test_survey(folder: Path, tmp_path: Path) -> None:
    found = NSYNTH.survey(folder, quick=True)
    assert found.state == "incomplete" and found.notes == ()
    assert found.counts == {"train notes": (12, 289205), "valid notes": (8, 12678), "test notes": (4, 4096)}
    assert "nsynth-train: 1 of 13 notes have no wav" in NSYNTH.survey(folder).notes[0]
    assert NSYNTH.survey(tmp_path / "none").state == "missing"
    (folder / "nsynth-valid" / "examples.json").unlink()
    assert NSYNTH.survey(folder).state == "missing" and "nsynth-valid" in NSYNTH.survey(folder).notes[0]


def test_a_whole_set_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = folder / "nsynth-train" / "examples.json"
    labels = json.loads(examples.read_text())
    there = {path.stem for path in (folder / "nsynth-train" / "audio").iterdir()}
    examples.write_text(json.dumps({name: label for name, label in labels.items() if name in there}))
    monkeypatch.setattr("mert_core.datasets.nsynth.NOTES", {"train": 12, "valid": 8, "test": 4})
    assert NSYNTH.survey(folder).state == "complete" and NSYNTH.read(folder, "pitch").left_out == {}


def test_wavs_without_bytes_are_left_out(folder: Path) -> None:
    path = sorted((folder / "nsynth-valid" / "audio").iterdir())[0]
    path.write_bytes(b"")
    assert NSYNTH.read(folder, "pitch").left_out == {ABSENT: 1, EMPTY: 1}
    assert path.stem not in {clip.clip_id for clip in NSYNTH.read(folder, "pitch").clips}
    found = NSYNTH.survey(folder)
    assert found.damaged == 1 and found.counts["valid notes"] == (7, 12678)
    assert f"nsynth-valid: 1 wavs have no bytes, such as {path.name}" in found.notes[1]
    assert NSYNTH.survey(folder, quick=True).damaged == 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"a": {"pitch": 1', "is no JSON"),
        ("[]", "one entry per note"),
        ("{}", "one entry per note"),
        ('{"a": {"pitch": 60}}', "instrument_family_str': None"),
        ('{"a": {"pitch": 128, "instrument_family_str": "bass"}}', "'pitch': 128"),
        ('{"a": {"pitch": "60", "instrument_family_str": "bass"}}', "'pitch': '60'"),
        ('{"a": {"pitch": 60, "instrument_family_str": ["bass"]}}', r"\['bass'\]"),
        ('{"a": 60}', "note 'a': found 60"),
    ],
)
def test_labels_that_are_not_as_expected(folder: Path, broken: str, said: str) -> None:
    (folder / "nsynth-test" / "examples.json").write_text(broken)
    with pytest.raises(MertError, match=said):
        NSYNTH.read(folder, "pitch")


def test_what_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(MertError, match="cannot be asked 'tone'"):
        NSYNTH.read(folder, "tone")
    for part in ("train", "valid", "test"):
        (folder / f"nsynth-{part}" / "audio").rename(folder / f"gone-{part}")
    with pytest.raises(MertError, match=r"no usable clip for train and valid and test.*no sound file: 25"):
        NSYNTH.read(folder, "pitch")
    (folder / "nsynth-train" / "examples.json").unlink()
    with pytest.raises(MertError, match=r"nsynth-train.examples\.json are missing"):
        NSYNTH.read(folder, "pitch")
    (folder / "nsynth-train" / "examples.json").mkdir()
    with pytest.raises(MertError, match=r"cannot be read \(Is a directory\)"):
        NSYNTH.read(folder, "pitch")


def test_only_labels_are_kept_of_the_json(folder: Path) -> None:
    """What stays in memory is far less than the parsed whole."""
    path = folder / "nsynth-train" / "examples.json"
    labels = json.loads(path.read_text())
    path.write_text(json.dumps({f"{name}-{number}": label for number in range(200) for name, label in labels.items()}))

    def kept(read: Callable[[], Any]) -> int:
        tracemalloc.start()
        try:
            parsed = read()
            assert len(parsed) == 200 * len(labels)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert kept(lambda: _read_labels(path)) < 0.3 * kept(lambda: json.loads(path.read_bytes()))
