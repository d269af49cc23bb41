from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from mert_core.config import load_config
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.probing.stage import probe, requested
from mert_core.report.leaderboard import compare_models, leaderboard
from mert_core.report.load import STALE, probed_models, read_all_scores
from mert_core.tracking import NullTracker
from tests.datasets.miniatures import write_nsynth

PARAMS = Path(__file__).parents[2] / "params.yaml"
PROBED = (("mine", "nsynth_pitch"), ("mine", "nsynth_instrument"), ("yours", "nsynth_pitch"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Two models, probed outside the pipeline."""
    work = tmp_path_factory.mktemp("work")
    write_nsynth(work / "nsynth", per_class=(12, 6, 6), seconds=0.5)
    MertModel.from_preset("mert-tiny", seed=3).save_pretrained(work / "model")
    layout = Layout.at(work)
    for name, task in PROBED:
        probe_model(name, task, layout, "model")
    return layout


def probe_model(name: str, task: str, layout: Layout, model: str) -> None:
    changes = ["threads=1", "probe.hidden=32", "probe.bootstrap=100", "probe.max_epochs=8", "probe.rates=[5.0e-3]"]
    config = load_config(PARAMS, changes)
    data = layout.root / "nsynth"
    wanted = requested(config, layout, model=str(layout.root / model), name=name, tasks=[task], data=data)
    probe(config, layout, NullTracker(), *wanted)


def test_folders_of_one_model_are_read_as_one(layout: Layout) -> None:
    assert probed_models(layout) == ["mine", "yours"]
    mine = read_all_scores(layout, "mine")
    assert set(mine.tasks) == {"nsynth_pitch", "nsynth_instrument"}
    assert mine.folders["nsynth_pitch"] == layout.probed("mine", "nsynth_pitch")
    with pytest.raises(MertError, match="theirs has not been probed here; found mine, yours"):
        read_all_scores(layout, "theirs")


def test_what_was_probed_from_other_weights_is_skipped_and_says_so(layout: Layout) -> None:
    MertModel.from_preset("mert-tiny", seed=4).save_pretrained(layout.root / "other")
    probe_model("mine", "nsynth_instrument", layout, "other")
    mine = read_all_scores(layout, "mine")
    assert set(mine.tasks) == {"nsynth_instrument"}, "the latest counts"
    assert mine.skipped == {"nsynth_pitch": STALE}
    probe_model("mine", "nsynth_pitch", layout, "other")
    mine = read_all_scores(layout, "mine")
    assert (set(mine.tasks), mine.skipped) == ({"nsynth_pitch", "nsynth_instrument"}, {})


def test_what_was_probed_outside_the_pipeline_stands_in_the_leaderboard(layout: Layout) -> None:
    rows = list(csv.DictReader(io.StringIO(leaderboard(layout, "csv"))))
    scored = {(row["model"], row["task"]) for row in rows if row["state"] == "scored"}
    assert scored == set(PROBED)


def test_the_tasks_that_both_have_are_compared(layout: Layout) -> None:
    text = compare_models(layout, "mine", "yours")
    assert "nsynth_pitch" in text
    assert "nsynth_instrument" not in text
