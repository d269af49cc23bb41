from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mert_core.config import Config, load_config
from mert_core.datasets.registry import DATASETS, folder_of, survey_all
from mert_core.errors import MertError
from mert_core.paths import Layout
from tests.datasets import miniatures


@pytest.fixture
def tree_at(tmp_path: Path, repository: Path) -> Path:
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    return tmp_path


def test_the_table_and_its_status(tree_at: Path) -> None:
    miniatures.write_emo(tree_at / "datasets/emo")
    command = [sys.executable, "-m", "mert_core.cli", "doctor", "--datasets", "--quick", "--workdir", str(tree_at)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "mtt         missing" in run.stdout and "emo         incomplete: 39 of 744 clips, 40 of 744" in run.stdout
    assert run.stdout.count("  licence") == run.stdout.count("  ask") == len(DATASETS)
    assert f"0 of {len(DATASETS)} complete; none damaged" in run.stdout
    (tree_at / "datasets/emo/annotations/songs_info.csv").write_text("song_id\n")
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "no column Artist" in run.stdout and "; 1 damaged" in run.stdout


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("emo", "annotations/static_annotations.csv", "no column song_id"),
        ("giantsteps", "giantsteps-mtg-key-dataset/annotations/annotations.txt", "no column ID"),
        ("giantsteps", "giantsteps-mtg-key-dataset/annotations/beatport_metadata.txt", "no column ID"),
        ("giantsteps", "giantsteps-key-dataset-master/annotations/key/774875.LOFI.key", "expected a key"),
    ],
)
def test_label_files_that_cannot_be_read_are_damage(
    tmp_path: Path, config: Config, name: str, file: str, said: str
) -> None:
    (miniatures.WRITERS[name](tmp_path / "datasets" / name) / file).write_text("\x01 garbage\n")
    with pytest.raises(MertError, match=said):
        DATASETS[name].survey(tmp_path / "datasets" / name, quick=True)
    surveys = list(survey_all(config, Layout.at(tmp_path), True))
    assert [said in text for survey, text in surveys if survey.damaged] == [True]


def test_every_set_has_its_place(config: Config, tree_at: Path) -> None:
    layout = Layout.at(tree_at)
    assert folder_of(config, layout, "emo") == layout.root / "datasets/emo"
    moved = load_config(tree_at / "params.yaml", ["datasets.places={emo: /data/Emo, mtt: sets/mtt}"])
    assert folder_of(moved, layout, "emo") == Path("/data/Emo")
    assert folder_of(moved, layout, "mtt") == layout.root / "sets/mtt"
    with pytest.raises(MertError, match="'fma'"):
        folder_of(config, layout, "fma")
    misspelt = load_config(tree_at / "params.yaml", ["datasets.places={emoo: /data}"])
    with pytest.raises(MertError, match=r"datasets\.places: no data set is named 'emoo'"):
        folder_of(misspelt, layout, "mtt")


def test_quick_belongs_to_datasets(tree_at: Path) -> None:
    assert yaml.safe_load((tree_at / "params.yaml").read_text())["datasets"] == {"folder": "datasets", "places": {}}
    command = [sys.executable, "-m", "mert_core.cli", "doctor", "--quick"]
    found = subprocess.run(command, cwd=tree_at, capture_output=True, text=True)
    assert found.returncode == 2 and "--datasets" in found.stderr
