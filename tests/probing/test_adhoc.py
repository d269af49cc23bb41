from __future__ import annotations

import json
from pathlib import Path

import pytest

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.probing.stage import Request, probe
from mert_core.tracking import NullTracker
from tests.datasets.miniatures import write_nsynth


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nsynth(tmp_path_factory.mktemp("data") / "nsynth", per_class=(12, 6, 6), seconds=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my model"
    MertModel.from_preset("mert-tiny", seed=3).save_pretrained(folder)
    return folder


def test_a_task_is_asked_of_a_folder(small: Config, tmp_path: Path, notes: Path, model: Path) -> None:
    layout = Layout.at(tmp_path)
    request = Request.of(small, layout, None, str(model), None, ["nsynth_pitch"], notes)
    text = probe(small, layout, NullTracker(), request)
    assert text.startswith("nsynth_pitch: accuracy ")
    assert text.endswith("left out: 1"), "a note that the json names has no sound"
    folder = layout.probed("my-model", "nsynth_pitch")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["tasks"]["nsynth_pitch"]["value"] > 0.9
    assert scores["tasks"]["nsynth_pitch"]["classes"] == 128
    assert (folder / "answers" / "nsynth_pitch.npz").exists()
    (line,) = (layout.state / "test-reads.jsonl").read_text().splitlines()
    assert json.loads(line)["task"] == "nsynth_pitch"

    assert probe(small, layout, NullTracker(), request) == text, "the same choice may be read again"
    other = small.model_copy(update={"probe": small.probe.model_copy(update={"patience": 3})})
    with pytest.raises(MertError, match="read the test set of nsynth_pitch before"):
        probe(other, layout, NullTracker(), request)
    assert json.loads((folder / "scores.json").read_text()) == scores


def test_a_stand_in_without_a_probe_set_says_what_makes_it(small: Config, tmp_path: Path, model: Path) -> None:
    layout = Layout.at(tmp_path)
    request = Request.of(small, layout, None, str(model), "mine", ["demo/gs_key"], None)
    with pytest.raises(MertError, match="probe_set"):
        probe(small, layout, NullTracker(), request)


def test_the_folder_of_a_run_is_that_run(small: Config, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    request = Request.of(small, layout, None, str(layout.model("tiny")), None, ["gs_key"], None)
    assert (request.subject.name, request.subject.model) == ("tiny", None)
    with pytest.raises(MertError, match=r"a run or floor of params\.yaml is named so"):
        Request.of(small, layout, None, str(tmp_path / "elsewhere" / "tiny"), None, ["gs_key"], None)


def test_what_is_not_here_is_skipped_unless_nothing_is(small: Config, tmp_path: Path, notes: Path, model: Path) -> None:
    layout = Layout.at(tmp_path)
    config = small.model_copy(update={"datasets": small.datasets.model_copy(update={"places": {"nsynth": str(notes)}})})
    request = Request.of(config, layout, None, str(model), "mine", ["mtt", "nsynth_instrument"], None)
    lines = probe(config, layout, NullTracker(), request).splitlines()
    assert lines[0] == "mtt: skipped, MagnaTagATune is not here"
    assert lines[1].startswith("nsynth_instrument: accuracy")
    assert not layout.probed("mine", "mtt").exists()
    with pytest.raises(MertError, match=r"MagnaTagATune is not here \(looked in .*mtt\)\. Give its folder with --data"):
        probe(config, layout, NullTracker(), Request.of(config, layout, None, str(model), "mine", ["mtt"], None))


@pytest.mark.parametrize(
    ("run", "model", "name", "tasks", "data", "message"),
    [
        (None, "m", None, ["key"], None, "no task is named key"),
        ("nobody", None, None, ["gs_key"], None, "no run is named 'nobody'"),
        (None, "m", "tiny", ["gs_key"], None, "a run or floor of params.yaml is named so"),
        (None, "m", "a/b", ["gs_key"], None, "expected letters, digits"),
        ("tiny", None, "mine", ["gs_key"], None, "--name goes with --model"),
        (None, "m", None, ["gs_key"], "missing", "no such folder"),
        (None, "m", None, ["gs_key", "emo"], ".", "one data set's folder"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    small: Config,
    tmp_path: Path,
    run: str | None,
    model: str | None,
    name: str | None,
    tasks: list[str],
    data: str | None,
    message: str,
) -> None:
    with pytest.raises(MertError, match=message):
        Request.of(small, Layout.at(tmp_path), run, model, name, tasks, None if data is None else tmp_path / data)
