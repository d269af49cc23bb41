from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mert_core.config import Config, load_config
from mert_core.datasets import mtt
from mert_core.datasets.base import Dataset
from mert_core.datasets.emo import Emomusic
from mert_core.datasets.giantsteps import TEST, TRACKS, TRAIN, GiantSteps
from mert_core.datasets.gtzan import Gtzan
from mert_core.datasets.mtt import MagnaTagATune
from mert_core.datasets.registry import DATASETS, folder_of, survey_all
from mert_core.errors import MertError
from mert_core.paths import Layout
from tests.datasets import miniatures

OURS: dict[str, Dataset] = {"mtt": MagnaTagATune(), "giantsteps": GiantSteps(), "gtzan": Gtzan(), "emo": Emomusic()}


def test_a_miniature_is_incomplete_and_an_empty_folder_missing(tmp_path: Path) -> None:
    expected = {
        "mtt": {"clips": (14, 25_860), "rows": (17, 25_863)},
        "giantsteps": {TRAIN: (12, 1486), TEST: (3, 604)},
        "gtzan": {"lists": (3, 3), "clips": (30, 929), "beats": (30, 929)},
        "emo": {"clips": (39, 744), "songs": (40, 744), "ratings": (39, 744)},
    }
    writers = {
        "mtt": miniatures.write_mtt,
        "giantsteps": miniatures.write_giantsteps,
        "gtzan": miniatures.write_gtzan,
        "emo": miniatures.write_emo,
    }
    for name, dataset in OURS.items():
        nothing = dataset.survey(tmp_path / name)
        assert nothing.state == "missing" and nothing.notes and not nothing.damaged
        found = dataset.survey(writers[name](tmp_path / name))
        assert (found.state, found.counts, found.damaged) == ("incomplete", expected[name], 0)
        assert found.notes


def test_a_whole_set_is_complete_and_an_empty_file_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtt, "CLIPS", 17)  # as many as the miniature has
    folder = miniatures.write_mtt(tmp_path)
    assert MagnaTagATune().survey(folder).state == "complete"
    (folder / "c/artist-album-08-29-58.mp3").write_bytes(b"")
    found = MagnaTagATune().survey(folder)
    assert (found.state, found.damaged, found.counts["clips"]) == ("incomplete", 1, (13, 14))
    assert "unpack" in found.notes[0]


def test_giantsteps_compares_with_the_published_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = miniatures.write_giantsteps(tmp_path)
    (folder / "giantsteps-mtg-key-dataset/md5/77.LOFI.md5").unlink()
    assert GiantSteps().survey(folder).state == "incomplete"  # though there is sound for every sum
    for part, count in ((TRAIN, 12), (TEST, 3)):  # as many as the miniature has
        monkeypatch.setitem(TRACKS, part, count)
    assert GiantSteps().survey(folder).state == "complete"
    path = folder / "giantsteps-key-dataset-master/audio/774875.LOFI.mp3"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert GiantSteps().survey(folder, quick=True).state == "complete"
    found = GiantSteps().survey(folder)
    assert (found.state, found.damaged) == ("incomplete", 1)
    assert "774875" in found.notes[0]


def test_lists_or_repositories_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = miniatures.write_gtzan(tmp_path / "gtzan")
    (folder / "test_filtered.txt").unlink()
    found = Gtzan().survey(folder)
    assert found.state == "missing" and "test_filtered.txt" in found.notes[0] and "dnn-mgr" in found.notes[0]
    folder = miniatures.write_giantsteps(tmp_path / "gs")
    (folder / "giantsteps-mtg-key-dataset/annotations/beatport_metadata.txt").unlink()
    found = GiantSteps().survey(folder)
    assert found.state == "missing" and "beatport_metadata.txt" in found.notes[0]


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
    write = {"emo": miniatures.write_emo, "giantsteps": miniatures.write_giantsteps}[name]
    (write(tmp_path / "datasets" / name) / file).write_text("\x01 garbage\n")
    with pytest.raises(MertError, match=said):
        OURS[name].survey(tmp_path / "datasets" / name, quick=True)
    surveys = list(survey_all(config, Layout.at(tmp_path), True, OURS))
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


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_says_what_it_is(name: str, tmp_path: Path) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name and dataset.questions
    assert dataset.title and dataset.licence and dataset.source
    assert dataset.survey(tmp_path / "nowhere").state == "missing"
    with pytest.raises(MertError):
        dataset.read(tmp_path / "nowhere", dataset.questions[0])


@pytest.fixture
def tree_at(tmp_path: Path, repository: Path) -> Path:
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    return tmp_path


def test_quick_belongs_to_datasets(tree_at: Path) -> None:
    assert yaml.safe_load((tree_at / "params.yaml").read_text())["datasets"] == {"folder": "datasets", "places": {}}
    command = [sys.executable, "-m", "mert_core.cli", "doctor", "--quick"]
    found = subprocess.run(command, cwd=tree_at, capture_output=True, text=True)
    assert found.returncode == 2 and "--datasets" in found.stderr
