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
from mert_core.datasets.reading import ABSENT
from mert_core.errors import MertError

NSYNTH = NSynth()


@pytest.fixture
def folder(copied: Callable[[str], Path]) -> Path:
    return copied("nsynth")


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


def test_a_whole_set_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nsynth-train: 1 of 13 notes have no wav" in NSYNTH.survey(folder).notes[0]
    assert NSYNTH.survey(folder, quick=True).notes == ()
    examples = folder / "nsynth-train" / "examples.json"
    labels = json.loads(examples.read_text())
    there = {path.stem for path in (folder / "nsynth-train" / "audio").iterdir()}
    examples.write_text(json.dumps({name: label for name, label in labels.items() if name in there}))
    monkeypatch.setattr("mert_core.datasets.nsynth.NOTES", {"train": 12, "valid": 8, "test": 4})
    assert NSYNTH.survey(folder).state == "complete" and NSYNTH.read(folder, "pitch").left_out == {}


def test_a_quick_survey_does_not_look_at_files_and_labels_that_cannot_be_read_are_named(folder: Path) -> None:
    sorted((folder / "nsynth-valid" / "audio").iterdir())[0].write_bytes(b"")
    assert (NSYNTH.survey(folder).damaged, NSYNTH.survey(folder, quick=True).damaged) == (1, 0)
    (folder / "nsynth-train" / "examples.json").unlink()
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
