"""Pairs, rows and the page they give."""

from __future__ import annotations

import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.page import describe, page
from benchmarks.row import Row, time_of
from benchmarks.timing import Pairs, paired


def test_the_ratio_is_the_median_of_the_rounds_and_the_warm_up_is_left_out() -> None:
    calls: list[str] = []
    told: list[str] = []
    pairs = paired(lambda: calls.append("ours"), lambda: calls.append("theirs"), 3, told.append, times=2)
    assert calls.count("ours") == 8 and calls.count("theirs") == 4  # the warm-up's among them
    assert calls[:3] == ["ours", "ours", "theirs"] and calls[3:6] == ["theirs", "ours", "ours"]  # who begins alternates
    assert len(pairs.ours) == len(pairs.theirs) == 3 and len(told) == 4
    assert Pairs([1.0, 2.0, 1.0], [3.0, 4.0, 9.0]).ratio == 3.0


def test_the_page_says_which_targets_were_missed() -> None:
    speed = Row.of_speed("steps", 2.5, Pairs([0.2, 0.2], [0.4, 0.44]), time_of)
    memory = Row.of_less("memory", 0.6, [0.8, 1.1], [2.0, 2.0], lambda size: f"{size:.3g} GiB")
    assert not speed.met and memory.met
    text = page([speed, memory], describe(), ["A note."])
    assert "| steps | ≥ 2.5× | 2.1× | 2 … 2.2 | 200.0 ms | 420.0 ms | 2 | **missed** |" in text
    assert "| memory | ≤ 0.6× | 0.475× | 0.4 … 0.55 | 0.95 GiB | 2 GiB | 2 | met |" in text
    assert "A note." in text and "Processor" in text


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--rounds", "0"], "expected 1 or more"), (["--only", "nothing"], "invalid choice")]
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2 and message in capsys.readouterr().err
