from __future__ import annotations

from pathlib import Path

import pytest

from mert_core import doctor
from mert_core.config import Config, load_config
from mert_core.paths import Layout


def levels(findings: list[doctor.Finding]) -> dict[str, str]:
    return {item.topic: item.level for item in findings}


def test_a_folder_without_git_and_dvc_is_a_problem(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MERT_HOME", str(tmp_path / "state"))
    assert doctor.examine(config, Layout.at(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "no git repository" in said
    assert said.splitlines()[-1] == "1 problem(s)"


def test_a_package_of_another_version_is_a_problem(tmp_path: Path) -> None:
    text = '[project]\ndependencies = ["torch==1.0", "no-such-package-here", "psutil"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    found = levels(list(doctor.packages(Layout.at(tmp_path))))
    assert (found["torch"], found["no-such-package-here"]) == ("problem", "problem")
    assert found["packages"] == "note"
    assert "psutil" not in found


def test_a_state_folder_that_cannot_be_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MERT_HOME", str(tmp_path / "file" / "state"))
    assert levels(list(doctor.state(Layout.at(tmp_path)))) == {"state": "problem"}


def test_a_damaged_result_is_a_problem_and_a_missing_one_is_not(tmp_path: Path, config: Config) -> None:
    layout = Layout.at(tmp_path)
    assert levels(list(doctor.stages(config, layout))) == {"stages": "ok"}
    layout.corpus.mkdir(parents=True)
    (layout.corpus / "record.json").write_text("{")
    assert "problem" in {item.level for item in doctor.stages(config, layout)}


def test_missing_music_and_weights_are_problems(tmp_path: Path, repository: Path) -> None:
    changes = ["corpus.source=folder", "corpus.folder=none", "teachers.encodec.checkpoint=none.th"]
    config = load_config(repository / "params.yaml", changes)
    assert levels(list(doctor.source(config, Layout.at(tmp_path)))) == {
        "music": "problem",
        "teacher": "problem",
        "teachers": "ok",
    }
