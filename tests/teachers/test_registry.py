"""What every teacher promises; a new one is tested by being in the registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.teachers.base import Sources, Teacher, online
from mert_core.teachers.codec import encodec
from mert_core.teachers.registry import TEACHERS, WEIGHTS_NAME, load_teacher, new_teacher, save_teacher, teacher_class
from tests.teachers.conftest import SMALL, SMALL_PUBLISHED, tracks

Fitted = Callable[[str], Teacher]
CROP_FRAMES = 70


@pytest.fixture(autouse=True)
def _small_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodec, "PUBLISHED", SMALL_PUBLISHED)


@pytest.fixture(params=list(TEACHERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def by_crops(teacher: Teacher) -> float:
    """Return the greatest distance of crops' targets from the stored ones: relative L2, or the share of other codes."""
    stretches, skips, expected = [], [], []
    for track in tracks():
        frames = len(track) // HOP_SAMPLES
        stored = teacher(track[None])[0]
        for first in (0, 3, frames // 2 - 30, frames - CROP_FRAMES):
            begin, end = teacher.context_span(first, CROP_FRAMES, frames)
            stretches.append(track[begin * HOP_SAMPLES : end * HOP_SAMPLES])
            skips.append(first - begin)
            expected.append(stored[first : first + CROP_FRAMES])
    found = online(teacher, stretches, skips, CROP_FRAMES)
    if isinstance(teacher.kind, Codes):
        return float((found != torch.stack(expected)).float().mean())
    return max(float((mine - true).norm() / true.norm()) for mine, true in zip(found, expected, strict=True))


def test_online_targets_are_the_stored_ones(name: str, fitted: Fitted) -> None:
    assert by_crops(fitted(name)) <= fitted(name).tolerance


@pytest.mark.parametrize("name", ["logmel-kmeans", "chroma-kmeans", "mfcc-kmeans", "mel-rvq", "logmel"])
def test_a_teacher_that_hears_too_little_is_found_out(
    name: str, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = fitted(name)
    assert teacher.context_frames
    monkeypatch.setattr(teacher, "context_frames", teacher.context_frames // 2)
    assert by_crops(teacher) > teacher.tolerance


def test_targets_have_the_promised_form(name: str, fitted: Fitted) -> None:
    teacher = fitted(name)
    assert teacher.name == name and teacher.frame_rate == 75
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    music = torch.stack([track[: 300 * HOP_SAMPLES] for track in tracks()])
    for waveform in (music, torch.zeros(2, 100 * HOP_SAMPLES), torch.zeros(1, HOP_SAMPLES)):
        targets = teacher(waveform)
        assert targets.shape == (len(waveform), waveform.shape[1] // HOP_SAMPLES, teacher.kind.width)
        if isinstance(teacher.kind, Codes):
            assert targets.dtype == torch.int64
            assert int(targets.min()) >= 0 and int(targets.max()) < teacher.kind.entries
        else:
            assert targets.dtype == torch.float32
            assert bool(targets.isfinite().all())


def test_it_matters_what_sounds_and_not_what_else_is_in_the_batch(name: str, fitted: Fitted) -> None:
    teacher = fitted(name)
    music = torch.stack([track[: 300 * HOP_SAMPLES] for track in tracks()])
    together, alone = teacher(music), torch.cat([teacher(row[None]) for row in music])
    assert float(together.float().std(dim=1).mean()) > 0
    assert not torch.equal(together[0], together[1])
    if isinstance(teacher.kind, Codes):
        assert torch.equal(together, alone)
    else:
        assert float((together - alone).norm() / alone.norm()) <= teacher.tolerance


def test_fitted_again_gives_the_same_bytes_and_loads_to_the_same_targets(
    name: str, fitted: Fitted, sources: Sources, tmp_path: Path
) -> None:
    again = new_teacher(name, SMALL.get(name))
    before = torch.random.get_rng_state()
    facts = again.fit(sources)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(isinstance(value, float | str) for value in facts.values())
    for folder, teacher in (("first", fitted(name)), ("second", again)):
        (tmp_path / folder).mkdir()
        save_teacher(tmp_path / folder, teacher)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert WEIGHTS_NAME in files
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)
    waveform = tracks()[0][None]
    assert torch.equal(load_teacher(tmp_path / "second")(waveform), fitted(name)(waveform))


def test_an_unknown_setting_is_named(name: str) -> None:
    with pytest.raises(MertError, match=rf"teachers\.{name}[\s\S]*nonsense"):
        new_teacher(name, {"nonsense": 1})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("logmel-kmeans", {"clusters": 1}, r"teachers\.logmel-kmeans[\s\S]*clusters"),
        ("mfcc-kmeans", {"clusters": 200, "fit_frames": 100}, "fit_frames is 100; it must be at least clusters = 200"),
        (
            "student-kmeans",
            {"run": "tiny", "block_seconds": 0.5001},
            "block_seconds is 0.5001; it must be a whole number of frames",
        ),
        ("best-rq", {"dimension": 0}, r"teachers\.best-rq[\s\S]*dimension"),
        ("mel-rvq", {"dimension": 129}, r"teachers\.mel-rvq[\s\S]*dimension"),
        ("rvqvae", {"entries": 1 << 20}, r"teachers\.rvqvae[\s\S]*entries"),
    ],
)
def test_an_impossible_setting_is_named(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(MertError, match=message):
        new_teacher(name, settings)


def test_the_example_of_the_docs_is_a_teacher(repository: Path) -> None:
    text = (repository / "docs" / "teachers.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(\"{3}Loudness.*?)```", text, re.DOTALL)
    assert example
    names: dict[str, type[Teacher]] = {}
    exec(example[1], names)
    teacher = names["LoudnessTeacher"]().freeze()
    assert by_crops(teacher) <= teacher.tolerance
    assert float(teacher(torch.zeros(1, HOP_SAMPLES))) == pytest.approx(-80.0)


def test_an_unknown_teacher_is_an_error_that_lists_them() -> None:
    with pytest.raises(MertError, match=r"no class of teachers is named 'cqtt'; there are .*mel-rvq"):
        teacher_class("cqtt")
