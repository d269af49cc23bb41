from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from mert_core.config import BASELINES, Config
from mert_core.data.corpus import Corpus
from mert_core.data.record import write_record
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.probing import stage
from mert_core.probing.protocol import protocol_hash
from mert_core.probing.results import Predictions, predictions_path
from mert_core.probing.stage import probe, requested
from mert_core.probing.tasks import TASKS
from mert_core.tracking import NullTracker
from tests.datasets.miniatures import write_nsynth
from tests.probing.material import write_probe_set


class Below(NullTracker):
    """Notes which runs were opened below it, and what they said."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self._now: dict[str, Any] = {}

    @contextmanager
    def child(self, name: str, tags: Mapping[str, Any]) -> Iterator[Below]:  # type: ignore[override]
        self._now = self.runs[name] = dict(tags)
        yield self
        self._now = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._now.update(values)

    def tags(self, values: Mapping[str, Any]) -> None:
        self._now.update(values)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_floor_is_probed_and_probed_again_to_the_byte(small: Config, probed: Layout, baseline: str) -> None:
    tracker = Below()
    record = stage.run(small, probed, tracker, baseline)
    first = contents(probed.scores(baseline))
    assert stage.run(small, probed, NullTracker(), baseline) == record
    assert contents(probed.scores(baseline)) == first
    assert record.inputs == {"probe_set": Corpus.open(probed.probe_set).record.id}

    scores = json.loads(first["scores.json"])
    assert scores["run"] == baseline
    assert sorted(scores["tasks"]) == ["demo/gs_key", "demo/gtzan_genre", "demo/nsynth_pitch"]
    assert scores["skipped"] == {"gtzan_genre": "GTZAN is not here"}
    for name, score in scores["tasks"].items():
        assert score["metric"] == TASKS[name].metrics[0]
        assert score["low"] <= score["value"] <= score["high"]
        assert score["metrics"][score["metric"]]["value"] == score["value"]
        assert len(score["per_seed"]) == 3
        assert score["protocol"] == protocol_hash(small, TASKS[name])
    key = scores["tasks"]["demo/gs_key"]
    assert (key["tracks"], key["left_out"]) == (23, {"key unknown": 3}), "one of each split has no key"
    assert scores["tasks"]["demo/nsynth_pitch"]["value"] > 0.9, "octaves of a sine are easy for any encoder"
    layers = json.loads(first["layers.json"])
    assert {len(rows) for rows in layers.values()} == {1 if baseline == "mel-statistics" else 5}
    robustness = json.loads(first["robustness.json"])
    assert set(robustness) == {"demo/nsynth_pitch"}
    assert "pitch" not in robustness["demo/nsynth_pitch"], "the answer would move with it"
    predictions = Predictions.load(predictions_path(probed.scores(baseline), "demo/nsynth_pitch"))
    (accuracy,) = predictions.figures()
    assert accuracy(predictions.truth, predictions.outputs).mean() == scores["tasks"]["demo/nsynth_pitch"]["value"]

    assert set(tracker.runs) == {f"probe-task/{baseline}/{task}" for task in small.probe.tasks}
    pitch = tracker.runs[f"probe-task/{baseline}/demo/nsynth_pitch"]
    assert pitch["accuracy"] == scores["tasks"]["demo/nsynth_pitch"]["value"]
    assert pitch["probe.protocol"] == scores["tasks"]["demo/nsynth_pitch"]["protocol"]
    assert tracker.runs[f"probe-task/{baseline}/gtzan_genre"]["probe.skipped"] == "GTZAN is not here"


def test_a_run_is_probed_from_its_checkpoint(small: Config, probed: Layout) -> None:
    config = small.model_copy(update={"probe": small.probe.model_copy(update={"tasks": ["demo/gtzan_genre"]})})
    folder = probed.model("tiny")
    with pytest.raises(MertError):
        stage.run(config, probed, NullTracker(), "tiny")
    folder.mkdir(parents=True)
    MertModel.from_preset("mert-tiny", seed=99).save_pretrained(folder)
    checkpoint = write_record(folder, stage="pretrain", kind="checkpoint", run="tiny", inputs={}, params={}, facts={})
    record = stage.run(config, probed, NullTracker(), "tiny")
    assert record.inputs["checkpoint"] == checkpoint.id


def test_workers_find_the_same_and_embed_once_what_tasks_share(small: Config, probed: Layout, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    write_probe_set(layout.probe_set)
    shared = small.model_copy(update={"probe": small.probe.model_copy(update={"workers": 2})})
    stage.run(shared, layout, NullTracker(), "mel-statistics")
    alone = contents(probed.scores("mel-statistics"))
    assert contents(layout.scores("mel-statistics")) == alone | {"record.json": ANY}
    cards = [json.loads(path.read_text()) for path in layout.caches.glob("embeddings/*/*.json")]
    embedded = [identity for card in cards for identity, *_ in card.get("sounds", [])]
    assert embedded
    assert len(embedded) == len(set(embedded))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nsynth(tmp_path_factory.mktemp("data") / "nsynth", per_class=(12, 6, 6), seconds=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my model"
    MertModel.from_preset("mert-tiny", seed=3).save_pretrained(folder)
    return folder


def test_a_folder_is_probed_on_one_task(small: Config, tmp_path: Path, notes: Path, model: Path) -> None:
    layout = Layout.at(tmp_path)
    wanted = requested(small, layout, model=str(model), tasks=["nsynth_pitch"], data=notes)
    text = probe(small, layout, NullTracker(), *wanted)
    assert text.startswith("nsynth_pitch: accuracy ")
    assert text.endswith("left out: 1"), "a note that the json names has no sound"
    folder = layout.probed("my-model", "nsynth_pitch")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["tasks"]["nsynth_pitch"]["value"] > 0.9
    assert scores["tasks"]["nsynth_pitch"]["classes"] == 128
    assert (folder / "answers" / "nsynth_pitch.npz").exists()
    (line,) = (layout.state / "test-reads.jsonl").read_text().splitlines()
    assert json.loads(line)["task"] == "nsynth_pitch"

    assert probe(small, layout, NullTracker(), *wanted) == text, "the same choice may be read again"
    other = small.model_copy(update={"probe": small.probe.model_copy(update={"patience": 3})})
    with pytest.raises(MertError, match="read the test set of nsynth_pitch before"):
        probe(other, layout, NullTracker(), *wanted)
    assert json.loads((folder / "scores.json").read_text()) == scores


def test_what_is_not_here_is_skipped_unless_nothing_is(small: Config, tmp_path: Path, notes: Path, model: Path) -> None:
    layout = Layout.at(tmp_path)
    config = small.model_copy(update={"datasets": small.datasets.model_copy(update={"places": {"nsynth": str(notes)}})})

    def probed(*tasks: str) -> str:
        wanted = requested(config, layout, model=str(model), name="mine", tasks=tasks)
        return probe(config, layout, NullTracker(), *wanted)

    lines = probed("mtt", "nsynth_instrument").splitlines()
    assert lines[0] == "mtt: skipped, MagnaTagATune is not here"
    assert lines[1].startswith("nsynth_instrument: accuracy")
    assert not layout.probed("mine", "mtt").exists()
    with pytest.raises(MertError, match=r"MagnaTagATune is not here \(looked in .*mtt\)\. Give its folder with --data"):
        probed("mtt")
    with pytest.raises(MertError, match="probe_set"):  # its record says what makes it
        probed("demo/gs_key")


def test_the_folder_of_a_run_is_that_run(small: Config, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    subject, _ = requested(small, layout, model=str(layout.model("tiny")), tasks=["gs_key"])
    assert (subject.name, subject.model) == ("tiny", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m", "tasks": ["key"]}, "no task is named key; there are mtt, gs_key"),
        ({"run": "nobody"}, "no run is named 'nobody'"),
        ({"model": "m", "name": "tiny"}, r"a run or baseline of params\.yaml is named so"),
        ({"model": "elsewhere/tiny"}, r"a run or baseline of params\.yaml is named so"),
        ({"model": "m", "name": "a/b"}, "expected letters, digits"),
        ({"run": "tiny", "name": "mine"}, "--name goes with --model"),
        ({"model": "m", "data": Path("missing")}, "no such folder"),
        ({"model": "m", "tasks": ["gs_key", "emo"], "data": Path(".")}, "one data set's folder"),
    ],
)
def test_bad_requests_say_what_is_wrong(small: Config, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MertError, match=message):
        requested(small, Layout.at(tmp_path), **{"tasks": ["gs_key"]} | options)
