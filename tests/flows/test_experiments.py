from __future__ import annotations

from pathlib import Path

import pytest

from flows import experiments
from mert_core.errors import MertError
from mert_core.paths import Layout
from tests.flow_checkout import checkout

__all__ = ["checkout"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "experiments").mkdir()
    (tmp_path / experiments.LIST_FILE).write_text("# why\nruns: []\n")
    return Layout.at(tmp_path)


def test_a_run_is_listed_once_and_the_comment_stays(layout: Layout) -> None:
    path = layout.root / experiments.LIST_FILE
    assert experiments.listed(layout) == []
    assert experiments.list_run(layout, "330m")
    assert not experiments.list_run(layout, "330m")
    assert experiments.list_run(layout, "95m")
    assert experiments.listed(layout) == ["330m", "95m"]
    assert path.read_text() == "# why\nruns: [330m, 95m]\n"


def test_an_experiment_lists_its_run_beside_the_others(layout: Layout) -> None:
    assert experiments.listing(layout, "330m") == "experiments/params.yaml:runs=[330m]"
    experiments.list_run(layout, "95m")
    assert experiments.listing(layout, "330m") == "experiments/params.yaml:runs=[95m,330m]"
    assert experiments.listing(layout, "95m") == "experiments/params.yaml:runs=[95m]"


@pytest.mark.parametrize("text", ["", "runs: [", "run: []"])
def test_a_broken_list_is_named(layout: Layout, text: str) -> None:
    (layout.root / experiments.LIST_FILE).write_text(text)
    with pytest.raises(MertError, match=r"experiments/params\.yaml cannot be read"):
        experiments.listed(layout)


def test_only_pretrain_and_probe_of_known_runs_are_heavy(checkout: Path) -> None:
    layout = Layout.at(checkout)
    assert experiments.run_of(layout, "probe@95m") == "95m"
    assert experiments.run_of(layout, "pretrain@1b") is None
    assert experiments.run_of(layout, "report") is None
