from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.data.record import read_record, write_record
from mert_core.errors import MertError
from mert_core.files import atomic_folder, atomic_path, canonical_json, write_json


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == canonical_json({"old": 1})
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_what_stood_there(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "b").write_text("2")
        raise RuntimeError
    assert [item.name for item in folder.iterdir()] == ["a"]
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_a_process_killed_between_two_moves_loses_nothing(tmp_path: Path) -> None:
    folder, moved = tmp_path / "out", tmp_path / ".out.replaced-abc"
    (tmp_path / ".out.unfinished-abc").mkdir()
    (tmp_path / ".out.abcdefgh").mkdir()  # somebody else's
    moved.mkdir()
    (moved / "a").write_text("1")
    with atomic_folder(tmp_path / "out") as temporary:
        assert (folder / "a").read_text() == "1"
        with atomic_folder(folder) as other:  # a process that is at work keeps its folder
            (other / "b").write_text("2")
        assert temporary.exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == [".out.abcdefgh", "out"]


def test_equal_json_has_equal_bytes_and_nan_is_refused() -> None:
    assert canonical_json({"b": 1, "a": [1.5]}) == canonical_json({"a": [1.5], "b": 1})
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_record_id_follows_content(tmp_path: Path) -> None:
    def make(text: str, name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "data").write_text(text)
        made = write_record(folder, stage="s", kind="k", inputs={"x": "1"}, params={"p": 1}, facts={})
        assert read_record(folder) == made
        return made.id

    assert make("one", "a") == make("one", "b")
    assert make("two", "c") != make("one", "d")


def test_a_missing_or_broken_record_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="dvc repro"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text('{"stage": 1}')
    with pytest.raises(MertError, match="not a stage record"):
        read_record(tmp_path)
