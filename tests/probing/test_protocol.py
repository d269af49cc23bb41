from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mert_core.errors import MertError
from mert_core.probing.protocol import hash_of_tracks, note_test_read

TESTS = hash_of_tracks([("b", "2"), ("a", "1")])
READ: dict[str, Any] = {
    "task": "gs_key",
    "model": "model",
    "test_set": TESTS,
    "input": 3,
    "rate": 1e-3,
    "protocol": "p" * 64,
}


def test_a_test_set_is_read_once_under_one_choice(tmp_path: Path) -> None:
    assert TESTS == hash_of_tracks([("a", "1"), ("b", "2")]) != hash_of_tracks([("a", "2"), ("b", "1")])
    for _ in range(2):
        note_test_read(tmp_path, **READ)
    for other in ({"input": "weighted"}, {"rate": 5e-3}, {"protocol": "q" * 64}):
        with pytest.raises(MertError, match=r"read the test set of gs_key before, under another choice"):
            note_test_read(tmp_path, **READ | other)
    for other in ({"model": "another model"}, {"test_set": "another set"}, {"task": "emo"}):
        note_test_read(tmp_path, **READ | other | {"input": 5})
    (log,) = tmp_path.iterdir()
    assert [json.loads(line)["input"] for line in log.read_text().splitlines()] == [3, 5, 5, 5]

    log.write_text("{oops")
    with pytest.raises(MertError, match="is no list of test reads"):
        note_test_read(tmp_path, **READ)
