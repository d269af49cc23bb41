"""Two runs compared: what the table says is what the comparison of their answers returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mert_core.cli import main
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.results import Predictions, predictions_path
from mert_core.probing.significance import compare
from mert_core.report.leaderboard import compare_models
from tests.report.made_up import entry, write_scores

TRACKS, SEEDS = 240, 3


def answers(right: float, beats: float) -> dict[str, Predictions]:
    """Return answers of which that share is right, and beats that earn so much on average."""
    random = np.random.default_rng(3)
    ids = tuple(f"track {number}" for number in range(TRACKS))
    truth = random.integers(0, 4, TRACKS)
    outputs = random.normal(size=(SEEDS, TRACKS, 4)).astype(np.float32)
    known = random.random(TRACKS) < right
    outputs[:, known, truth[known]] += 50
    outputs[:, ~known, (truth[~known] + 1) % 4] += 50
    earned = np.clip(random.normal(beats, 0.1, (SEEDS, TRACKS)), 0, 1)
    return {
        "demo/gtzan_genre": Predictions(ids, ("accuracy",), tuple("abcd"), truth, outputs),
        "demo/gtzan_rhythm": Predictions(ids, points={"f_measure": earned}),
        "gtzan_genre": Predictions(ids, ("accuracy",), tuple("abcd"), truth, outputs),
    }


def put(layout: Layout, run: str, predictions: dict[str, Predictions], protocol: str = "a" * 64) -> None:
    metric = {"gtzan_rhythm": "f_measure"}
    entries = {
        task: entry(task, {metric.get(task.removeprefix("demo/"), "accuracy"): 0.5}, protocol) for task in predictions
    }
    write_scores(layout, run, None, entries)
    for task, each in predictions.items():
        path = predictions_path(layout.scores(run), task)
        path.parent.mkdir(exist_ok=True)
        each.save(path)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.at(tmp_path)
    put(layout, "tiny", answers(0.4, 0.5))
    put(layout, "95m", answers(0.7, 0.5))
    return layout


def test_the_table_holds_the_differences_of_the_answers(layout: Layout) -> None:
    text = compare_models(layout, "tiny", "95m")
    demo, real = text.split("Fourteen tasks")
    assert demo.startswith("Proxy tasks")
    assert "demo/" not in real
    differences = compare(
        *({task: item for task, item in answers(right, 0.5).items() if task in demo} for right in (0.4, 0.7))
    )
    rows = [line.split() for line in demo.splitlines() if "[" in line]
    for row, line in zip(differences[:2], rows, strict=True):
        assert line[0] == row.task
        assert f"{100 * row.difference:+.1f}" in line[-6]
        assert f"[{100 * row.low:+.1f}," in line
        assert f"{row.tracks}" == line[-1]
    assert rows[0][-6].endswith("*")
    assert rows[1][-6] == "+0.0"  # the same beats: no difference, and no mark
    assert rows[1][-3:-1] == ["1.0000", "1.0000"]


def test_the_command_prints_it(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    params = str(Path(__file__).parents[2] / "params.yaml")
    command = ["leaderboard", "--workdir", str(layout.root), "--params", params, "--compare", "tiny", "95m"]
    assert main([*command, "--demo"]) == 0
    shown = capsys.readouterr().out
    assert shown == compare_models(layout, "tiny", "95m", demo=True)
    assert "Fourteen" not in shown
    assert main([*command, "--format", "csv"]) == 2
    assert "--compare is text" in capsys.readouterr().err


def test_other_protocols_are_left_out_and_named(layout: Layout) -> None:
    put(layout, "95m", {"gtzan_genre": answers(0.7, 0.5)["gtzan_genre"]}, protocol="b" * 64)
    text = compare_models(layout, "tiny", "95m")
    assert "Not comparable, probed by another protocol or on other music: gtzan_genre." in text
    assert "[" not in text.split("\n\n")[1]


def test_what_cannot_be_compared_is_an_error(layout: Layout) -> None:
    with pytest.raises(MertError, match="330m has not been probed here; found 95m, tiny"):
        compare_models(layout, "tiny", "330m")
    with pytest.raises(MertError, match="expected two different runs"):
        compare_models(layout, "tiny", "tiny")
    put(layout, "other", {"nsynth_pitch": answers(0.7, 0.5)["gtzan_genre"]})
    with pytest.raises(MertError, match="on no common task"):
        compare_models(layout, "tiny", "other")
    predictions_path(layout.scores("95m"), "gtzan_genre").unlink()
    with pytest.raises(MertError, match="cannot be read"):
        compare_models(layout, "tiny", "95m")
