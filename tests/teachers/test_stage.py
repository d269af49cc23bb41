"""The stage on a real little corpus."""

from __future__ import annotations

from pathlib import Path

import encodec
import pytest
import torch

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, load_config
from mert_core.data.record import read_record, write_record
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.teachers.stage import open_teacher, run
from mert_core.tracking import NullTracker
from tests.teachers.conftest import SMALL, write_student

CHANGES = [
    "threads=1",
    "teachers.rvqvae.steps=4",
    "teachers.rvqvae.batch_clips=2",
    "teachers.rvqvae.filters=2",
    "teachers.rvqvae.dimension=8",
    "teachers.rvqvae.entries=8",
    "teachers.rvqvae.crop_seconds=0.2",
]


@pytest.fixture
def small(repository: Path) -> Config:
    return load_config(repository / "params.yaml", CHANGES)


def test_fits_to_the_same_bytes_twice_and_cleans_up(small: Config, layout: Layout) -> None:
    first = run(small, layout, NullTracker(), "rvqvae")
    folder = layout.teacher("rvqvae")
    files = {path.name: sha256_file(path) for path in folder.iterdir()}
    assert first == run(small, layout, NullTracker(), "rvqvae")
    assert files == {path.name: sha256_file(path) for path in folder.iterdir()}
    assert (first.kind, first.run, first.facts["kind"]) == ("teacher", "rvqvae", "8 × 8 codes")
    assert first.inputs == {"corpus": read_record(layout.corpus).id}
    assert not list(layout.resume.glob("*"))
    teacher, identity = open_teacher(small, layout, "rvqvae")
    assert identity == first.id
    assert teacher(torch.zeros(1, SAMPLE_RATE)).shape == (1, 75, 8)


def test_a_teacher_stays_where_all_that_changed_is_that_music_was_added(
    small: Config, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(small, layout, NullTracker(), "rvqvae")
    corpus = read_record(layout.corpus)

    def become(facts: dict[str, list[str]]) -> None:
        write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={"now": 2}, facts=facts)

    become({"grown_from": ["0" * 64, corpus.id]})
    assert run(small, layout, NullTracker(), "rvqvae") == first == read_record(layout.teacher("rvqvae"))
    assert "fitted before music was added, and stays" in capsys.readouterr().err
    other = small.model_copy(update={"seed": 3})
    assert run(other, layout, NullTracker(), "rvqvae").id != first.id, "another seed asks for another teacher"
    become({"grown_from": ["0" * 64]})
    assert run(small, layout, NullTracker(), "rvqvae").inputs == {"corpus": read_record(layout.corpus).id}


def test_the_students_record_is_an_input(small: Config, layout: Layout) -> None:
    write_student(layout.root / "student")
    settings = {**SMALL["student-kmeans"], "fit_frames": 200}
    record = run(
        small.model_copy(update={"teachers": {"student-kmeans": settings}}), layout, NullTracker(), "student-kmeans"
    )
    assert record.inputs == {
        "corpus": read_record(layout.corpus).id,
        "checkpoint": read_record(layout.root / "student").id,
    }
    assert record.params["settings"]["layer"] == 1


def test_what_needs_no_fit_opens_at_once_and_what_does_says_how(small: Config, layout: Layout) -> None:
    teacher, identity = open_teacher(small, layout, "cqt")
    assert str(teacher.kind) == "336 bins"
    assert identity == open_teacher(small, layout, "cqt")[1] != open_teacher(small, layout, "chroma")[1]
    with pytest.raises(MertError, match=r"run `mert teachers fit mel-rvq`"):
        open_teacher(small, layout, "mel-rvq")


def test_published_weights_are_taken_unchanged(repository: Path, layout: Layout) -> None:
    state = encodec.EncodecModel.encodec_model_24khz(pretrained=False).state_dict()
    torch.save(state, layout.root / "encodec.th")
    named = load_config(repository / "params.yaml", ["threads=1", "teachers.encodec.checkpoint=encodec.th"])
    record = run(named, layout, NullTracker(), "encodec")
    assert record.facts["checkpoint_sha256"] == sha256_file(layout.root / "encodec.th")
    assert record.inputs == {}
    teacher, _ = open_teacher(named, layout, "encodec")
    assert teacher.kind == Codes(8, 1024)
    assert torch.equal(
        teacher.model.quantizer.vq.layers[31]._codebook.embed, state["quantizer.vq.layers.31._codebook.embed"]
    )
    with pytest.raises(MertError, match=r"teachers\.encodec\.checkpoint is null"):
        run(load_config(repository / "params.yaml", ["threads=1"]), layout, NullTracker(), "encodec")
