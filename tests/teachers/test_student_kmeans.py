"""Labels from a student's layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.errors import MertError
from mert_core.model.checkpoint import fingerprint
from mert_core.model.mert import MertModel
from mert_core.teachers.base import Sources, Teacher
from mert_core.teachers.registry import load_teacher, new_teacher, save_teacher
from tests.teachers.conftest import SMALL, tracks

BLOCK_FRAMES = 90
Fitted = Callable[[str], Teacher]


def test_a_block_is_heard_whole_and_one_frame_more(fitted: Fitted) -> None:
    teacher = fitted("student-kmeans")
    assert teacher.context_span(0, 1, 1000) == (0, BLOCK_FRAMES + 1)
    assert teacher.context_span(89, 2, 1000) == (0, 2 * BLOCK_FRAMES + 1)
    assert teacher.context_span(90, 90, 1000) == (90, 2 * BLOCK_FRAMES + 1)
    assert teacher.context_span(95, 30, 130) == (90, 130)


def test_labels_are_of_the_students_own_states(fitted: Fitted, sources: Sources) -> None:
    teacher = fitted("student-kmeans")
    student = MertModel.from_pretrained(sources.root / "student")
    track = tracks()[0]
    block = track[BLOCK_FRAMES * HOP_SAMPLES :][: BLOCK_FRAMES * HOP_SAMPLES + 80]
    with torch.no_grad():
        states = student(block[None]).hidden_states[1][0].double()
    assert len(states) == BLOCK_FRAMES
    normalised = (states - teacher.mean) / teacher.deviation
    expected = torch.cdist(normalised, teacher.centroids.double()).argmin(1)
    assert torch.equal(teacher(track[None])[0, BLOCK_FRAMES : 2 * BLOCK_FRAMES, 0], expected)


def test_it_needs_no_other_folder_once_it_is_fitted(sources: Sources, tmp_path: Path) -> None:
    shutil.copytree(sources.root / "student", tmp_path / "student")
    teacher = new_teacher("student-kmeans", SMALL["student-kmeans"])
    facts = teacher.fit(replace(sources, root=tmp_path))
    assert facts["student_sha256"] == fingerprint(tmp_path / "student")
    (tmp_path / "saved").mkdir()
    save_teacher(tmp_path / "saved", teacher)
    shutil.rmtree(tmp_path / "student")
    waveform = tracks()[1][None]
    assert torch.equal(load_teacher(tmp_path / "saved")(waveform), teacher.freeze()(waveform))


def test_a_layer_or_student_that_is_not_there_is_an_error(sources: Sources) -> None:
    with pytest.raises(MertError, match=r"layer is 6, but the student in .*student has the states 0 to 2"):
        new_teacher("student-kmeans", {**SMALL["student-kmeans"], "layer": 6}).fit(sources)
    with pytest.raises(MertError, match=r"cannot read .*absent.config\.json"):
        new_teacher("student-kmeans", {**SMALL["student-kmeans"], "student": "absent"}).fit(sources)
