"""The leaderboard: text, CSV and HTML say the same, and proxy tasks never stand beside published figures."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mert_core.cli import main
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.results import Predictions, predictions_path
from mert_core.probing.significance import compare
from mert_core.probing.tasks import PUBLIC_TASKS
from mert_core.report.board import fourteen_board, proxy_board
from mert_core.report.leaderboard import as_csv, as_text, compare_models, leaderboard
from mert_core.report.load import read_scores
from mert_core.report.pages import leaderboard_page
from mert_core.report.published import fourteen_metrics, published
from tests.report.made_up import (
    BASELINES,
    METRICS,
    NO_DATA,
    PARAMS,
    PROTOCOL,
    PROXY_TASKS,
    Page,
    entry,
    value_of,
    write_pipeline,
    write_scores,
)

OTHER = "0f" * 32


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"), runs=("tiny", "95m"))


def real(better: float, without: tuple[str, ...] = (), protocol: str = PROTOCOL) -> dict[str, dict[str, Any]]:
    """Return entries of the fourteen tasks: the metrics that are published, museval's and the strict F."""
    entries = {}
    for task, metrics in fourteen_metrics().items():
        starts = [5.0 if metric.startswith("sdr") else 0.6 for metric in metrics]
        values = {name: start + better + 0.01 * i for i, (name, start) in enumerate(zip(metrics, starts, strict=True))}
        values |= {"gtzan_rhythm": {"f_measure_20ms": 0.3}, "musdb18": {"sdr_vocals_museval": 4.0}}.get(task, {})
        entries[task] = entry(task, values, protocol, "weighted")
    return {task: score for task, score in entries.items() if task not in without}


@pytest.fixture
def fourteen_run(tmp_path: Path) -> Layout:
    """Two runs and a baseline on the fourteen: one run complete, the other without keys; one baseline is missing."""
    layout = Layout.at(tmp_path)
    write_scores(layout, "95m", None, real(0.2))
    write_scores(layout, "tiny", None, real(0.1, without=("gs_key",)))
    write_scores(layout, "random-weights", None, real(0.0))
    return layout


def rows_of(layout: Layout, *, demo: bool = False) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(leaderboard(layout, "csv", demo=demo))))


def cells_of(layout: Layout) -> dict[tuple[str, ...], dict[str, str]]:
    return {(row["task"], row["metric"], row["model"]): row for row in rows_of(layout)}


def means_of(layout: Layout, *, demo: bool = False) -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in rows_of(layout, demo=demo) if row["task"] == "average"}


def test_csv_read_back_equals_every_number(pipeline: Layout) -> None:
    rows = [row for row in rows_of(pipeline, demo=True) if row["task"] != "average"]
    assert {(row["task"], row["metric"], row["model"]) for row in rows} == {
        (task, metric, run)
        for task in PROXY_TASKS
        for metric in METRICS[task.removeprefix("demo/")]
        for run in ("tiny", "95m", *BASELINES)
    }
    for row in rows:
        task, metric, run = row["task"], row["metric"], row["model"]
        unit = 1 if metric.startswith("sdr") else 100
        score = read_scores(pipeline, run).tasks[task]
        estimate = score["metrics"][metric]
        assert row["unit"] == ("dB" if unit == 1 else "%")
        assert float(row["value"]) == unit * estimate["value"] == unit * value_of(run, task, metric)
        assert (float(row["low"]), float(row["high"])) == (unit * estimate["low"], unit * estimate["high"])
        assert (row["protocol"], row["input"]) == (PROTOCOL, str(score["input"]))


def test_text_and_html_show_the_numbers_of_the_csv(pipeline: Layout, fourteen_run: Layout) -> None:
    for layout, demo in ((pipeline, True), (fourteen_run, False)):
        rows = rows_of(layout, demo=demo)
        text = leaderboard(layout, "text", demo=demo, width=10_000)
        html = Page(leaderboard(layout, "html", demo=demo)).text
        for row in rows:
            if row["value"]:
                value = f"{float(row['value']):.1f}"
                assert value in text
                assert value.replace("-", "−") in html
            if row["low"]:
                low, high = (f"{float(row[name]):.1f}" for name in ("low", "high"))
                assert f"[{low}, {high}]" in text
                assert f"{low} to {high}".replace("-", "−") in html
        assert text.count(PROTOCOL[:8]) == html.count(PROTOCOL[:8]) == sum(row["protocol"] != "" for row in rows)
        assert PROTOCOL[:9] not in text


def test_a_lines_cells_stand_under_their_models(pipeline: Layout) -> None:
    lines = leaderboard(pipeline, demo=True, width=10_000).splitlines()
    head = next(number for number, text in enumerate(lines) if text.startswith("task"))
    starts = [lines[head].index(f"  {run}") + 2 for run in ("95m", "tiny", *BASELINES)]
    assert starts == sorted(starts)
    assert lines[head].split() == ["task", "95m", "tiny", *BASELINES]  # the better average first, the baselines last
    key = next(text for text in lines if text.startswith("demo/gs_key"))
    shown = [key[start : start + 26].split("[")[0].strip() for start in starts]
    assert shown == ["57.0*", "52.0*", "21.0", "24.0"]


@pytest.mark.parametrize("width", [60, 80, 132, 200])
def test_no_line_is_wider_than_the_terminal(pipeline: Layout, width: int) -> None:
    text = leaderboard(pipeline, width=width)
    widest = max(len(row) for row in text.splitlines())
    assert widest <= max(width, 72)  # the tasks and one column with its interval need that much
    for model in {figure.model.split(" (")[0].split("-")[0].split(" ")[0] for figure in published()}:
        assert model in text


def test_published_figures_never_stand_beside_stand_ins(pipeline: Layout, fourteen_run: Layout) -> None:
    for layout in (pipeline, fourteen_run):
        scores = [read_scores(layout, path.name) for path in sorted((layout.root / "data/probe").iterdir())]
        demo, main_table = proxy_board(scores), fourteen_board(scores)
        assert all(column.ours for column in demo.columns)
        assert all(row.task.startswith("demo/") for row in demo.lines)
        assert not any(row.task.startswith("demo/") for row in main_table.lines)
        assert "arXiv" not in as_csv(demo) + as_text(demo, 200) + leaderboard_page([demo])
        assert "demo/" not in as_csv(main_table) + as_text(main_table, 200) + leaderboard_page([main_table])
    for table in re.findall(r"<table.*?</table>", leaderboard(pipeline, "html"), re.DOTALL):
        assert not ("demo/" in table and "MERT-" in table)


def test_published_rows_have_their_source(fourteen_run: Layout) -> None:
    named = "source", "model", "task", "metric"
    rows = {tuple(row[name] for name in named): row for row in rows_of(fourteen_run) if row["kind"] == "published"}
    text, html = leaderboard(fourteen_run), Page(leaderboard(fourteen_run, "html")).text
    for figure in published():
        row = rows[figure.source, figure.model, figure.task, figure.metric]
        assert (row["state"], float(row["value"]), row["low"]) == ("published", figure.value, "")
        assert figure.source in text and figure.source in html


def test_the_average_stands_only_where_all_is_there(fourteen_run: Layout) -> None:
    means = means_of(fourteen_run)
    expected = [
        sum((5.2 + 0.01 * i) if name.startswith("sdr") else 80 + i for i, name in enumerate(metrics)) / len(metrics)
        for metrics in fourteen_metrics().values()
    ]
    assert float(means["95m"]["value"]) == pytest.approx(sum(expected) / 14)
    assert (means["tiny"]["value"], means["tiny"]["state"]) == ("", "missing")
    assert means["tiny"]["reason"] == "gs_key weighted_score"
    assert means["MuQ"]["value"] == ""
    assert "No average of tiny: 1 figure is missing: gs_key weighted_score" in leaderboard(fourteen_run, width=400)


def test_a_stand_in_without_one_task_has_no_average(tmp_path: Path) -> None:
    layout = write_pipeline(tmp_path)
    entries = read_scores(layout, "tiny").tasks
    del entries["demo/emo"]["metrics"]["r2_density"]
    write_scores(layout, "tiny", None, entries)
    means = means_of(layout, demo=True)
    assert (means["tiny"]["value"], means["tiny"]["reason"]) == ("", "demo/emo r2_density")
    assert means["random-weights"]["value"] != ""


def test_missing_and_skipped_cells_say_why(fourteen_run: Layout) -> None:
    rows = cells_of(fourteen_run)
    key = rows["gs_key", "weighted_score", "tiny"]
    assert (key["state"], key["value"], key["reason"]) == ("skipped", "", NO_DATA)
    baseline = rows["gs_key", "weighted_score", "mel-statistics"]  # stands there although nobody probed it
    assert (baseline["state"], baseline["reason"]) == ("missing", "not probed")
    assert rows["musdb18", "sdr_vocals", "CLMR"]["state"] == "missing"
    text, html = leaderboard(fourteen_run, width=10_000), leaderboard(fourteen_run, "html")
    assert "skipped" in next(row for row in text.splitlines() if row.startswith("gs_key"))
    assert f"Skipped: gs_key (tiny): {NO_DATA}" in text
    assert re.search(rf"<td class=\"skipped run\"[^>]*><strong>skipped</strong> {NO_DATA}</td>", html)


def test_marks_need_the_same_protocol(fourteen_run: Layout) -> None:
    rows = cells_of(fourteen_run)
    assert rows["mtt", "ap", "95m"]["above_baselines"] == "true"
    assert {row["comparable"] for row in rows.values()} == {"true", ""}
    write_scores(fourteen_run, "95m", None, real(0.2, protocol=OTHER))
    rows = cells_of(fourteen_run)
    odd = rows["mtt", "ap", "95m"]
    assert (odd["comparable"], odd["above_baselines"], odd["protocol"]) == ("false", "false", OTHER)
    assert rows["mtt", "ap", "tiny"]["comparable"] == "true"
    text, html = leaderboard(fourteen_run, width=10_000), leaderboard(fourteen_run, "html")
    assert "81.0‡[" in text
    assert "‡ Not comparable, 95m was probed by another protocol or on other music: mtt, gtzan_genre" in text
    assert OTHER[:8] in text
    assert 'class="odd"' in html


def test_html_is_whole_and_fetches_nothing(pipeline: Layout) -> None:
    raw = leaderboard(pipeline, "html")
    shown = Page(raw)
    assert (shown.open, shown.sources) == ([], [])
    assert "http" not in raw
    assert 'name="viewport"' in raw
    assert all(box in raw for box in ('<div class="scroll"><table class="board">', "Fourteen tasks", "Proxy tasks"))
    for table in re.findall(r"<table.*?</table>", raw, re.DOTALL):
        # Every row covers every column, merged cells counted.
        widths, hanging = [], Counter[int]()
        for number, row in enumerate(re.findall(r"<tr.*?</tr>", table, re.DOTALL)):
            cells = re.findall(r"<t[hd]([^>]*)>", row)
            covers = [(span(cell, "colspan"), span(cell, "rowspan")) for cell in cells]
            widths.append(sum(across for across, _ in covers) + hanging[number])
            for across, down in covers:
                hanging.update({below: across for below in range(number + 1, number + down)})
        assert len(set(widths)) == 1


def span(cell: str, name: str) -> int:
    return int((re.search(rf'{name}="(\d+)"', cell) or [0, 1])[1])


def test_the_command_prints_or_writes(pipeline: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["leaderboard", "--workdir", str(pipeline.root), "--params", str(PARAMS)]
    assert main([*common, "--demo"]) == 0
    assert capsys.readouterr().out == leaderboard(pipeline, demo=True)
    assert main([*common, "--format", "csv", "--out", str(tmp_path / "board.csv")]) == 0
    assert (tmp_path / "board.csv").read_text() == leaderboard(pipeline, "csv")
    assert main([*common, "--out", str(tmp_path / "new" / "folder" / "b.txt")]) == 0
    assert (tmp_path / "new" / "folder" / "b.txt").read_text() == leaderboard(pipeline)
    assert main([*common, "--out", str(tmp_path / "board.csv" / "b.txt")]) == 2
    assert "board.csv" in capsys.readouterr().err
    assert set(PUBLIC_TASKS) <= {row["task"] for row in rows_of(pipeline)}


def test_nothing_probed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="nothing has been probed"):
        leaderboard(Layout.at(tmp_path))


def test_scores_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    layout = write_pipeline(tmp_path)
    path = layout.scores("tiny") / "scores.json"
    path.write_text(path.read_text().replace('"protocol"', '"layer"'))
    with pytest.raises(MertError, match=r"scores\.json: demo/emo has no protocol"):
        leaderboard(layout)


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
def answered(tmp_path: Path) -> Layout:
    layout = Layout.at(tmp_path)
    put(layout, "tiny", answers(0.4, 0.5))
    put(layout, "95m", answers(0.7, 0.5))
    return layout


def test_the_table_holds_the_differences_of_the_answers(answered: Layout) -> None:
    text = compare_models(answered, "tiny", "95m")
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


def test_the_command_prints_it(answered: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["leaderboard", "--workdir", str(answered.root), "--params", str(PARAMS), "--compare", "tiny", "95m"]
    assert main([*command, "--demo"]) == 0
    shown = capsys.readouterr().out
    assert shown == compare_models(answered, "tiny", "95m", demo=True)
    assert "Fourteen" not in shown
    assert main([*command, "--format", "csv"]) == 2
    assert "--compare is text" in capsys.readouterr().err


def test_other_protocols_are_left_out_and_named(answered: Layout) -> None:
    put(answered, "95m", {"gtzan_genre": answers(0.7, 0.5)["gtzan_genre"]}, protocol="b" * 64)
    text = compare_models(answered, "tiny", "95m")
    assert "Not comparable, probed by another protocol or on other music: gtzan_genre." in text
    assert "[" not in text.split("\n\n")[1]


def test_what_cannot_be_compared_is_an_error(answered: Layout) -> None:
    with pytest.raises(MertError, match="330m has not been probed here; found 95m, tiny"):
        compare_models(answered, "tiny", "330m")
    with pytest.raises(MertError, match="expected two different runs"):
        compare_models(answered, "tiny", "tiny")
    put(answered, "other", {"nsynth_pitch": answers(0.7, 0.5)["gtzan_genre"]})
    with pytest.raises(MertError, match="on no common task"):
        compare_models(answered, "tiny", "other")
    predictions_path(answered.scores("95m"), "gtzan_genre").unlink()
    with pytest.raises(MertError, match="cannot be read"):
        compare_models(answered, "tiny", "95m")
