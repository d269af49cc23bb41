from __future__ import annotations

import json
from pathlib import Path

import pytest

from mert_core.errors import MertError
from mert_core.probing.protocol import SettledChoice, TestReadLog, hash_of_tracks

CHOICE = SettledChoice(3, 1e-3, "p" * 64)


def test_a_test_set_is_read_once_under_one_choice(tmp_path: Path) -> None:
    test_reads = TestReadLog(tmp_path)
    tests = hash_of_tracks([("b", "2"), ("a", "1")])
    assert tests == hash_of_tracks([("a", "1"), ("b", "2")]) != hash_of_tracks([("a", "2"), ("b", "1")])
    test_reads.read("gs_key", "model", tests, CHOICE)
    TestReadLog(tmp_path).read("gs_key", "model", tests, CHOICE)
    assert len(test_reads.path.read_text().splitlines()) == 1
    for other in (
        SettledChoice("weighted", 1e-3, "p" * 64),
        SettledChoice(3, 5e-3, "p" * 64),
        SettledChoice(3, 1e-3, "q" * 64),
    ):
        with pytest.raises(MertError, match=r"read the test set of gs_key before, under another choice"):
            test_reads.read("gs_key", "model", tests, other)
    test_reads.read("gs_key", "another model", tests, SettledChoice(5, 1e-3, "p" * 64))
    test_reads.read("gs_key", "model", "another set", SettledChoice(5, 1e-3, "p" * 64))
    test_reads.read("emo", "model", tests, SettledChoice(5, 1e-3, "p" * 64))
    assert [json.loads(line)["input"] for line in test_reads.path.read_text().splitlines()] == [3, 5, 5, 5]


def test_a_damaged_log_is_no_empty_one(tmp_path: Path) -> None:
    test_reads = TestReadLog(tmp_path)
    test_reads.path.write_text("{oops")
    with pytest.raises(MertError, match="is no list of test reads"):
        test_reads.read("gs_key", "model", "set", CHOICE)
