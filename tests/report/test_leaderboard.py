"""The leaderboard: text, CSV and HTML say the same, and proxy tasks never stand beside published figures."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from mert_core.cli import main
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import PUBLIC_TASKS
from mert_core.report.board import fourteen_board, proxy_board
from mert_core.report.leaderboard import as_csv, as_text, leaderboard
from mert_core.report.load import Scores, read_scores
from mert_core.report.pages import leaderboard_page
from mert_core.report.published import fourteen_metrics, published
from tests.report.made_up import (
    BASELINES,
    METRICS,
    NO_DATA,
    PROTOCOL,
    PROXY_TASKS,
    entry,
    value_of,
    write_pipeline,
    write_scores,
)
from tests.report.page_reader import Page

OTHER = "0f" * 32


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return write_pipeline(tmp_path_factory.mktemp("pipeline"), runs=("tiny", "95m"))


def real(better: float, without: tuple[str, ...] = (), protocol: str = PROTOCOL) -> dict[str, dict[str, Any]]:
    """Return entries of the fourteen tasks: the metrics that are published, museval's and the strict F."""
    entries = {}
    for task, metrics in fourteen_metrics().items():
        values = {
            metric: (5.0 if metric.startswith("sdr") else 0.6) + better + 0.01 * index
            for index, metric in enumerate(metrics)
        }
        if task == "gtzan_rhythm":
            values["f_measure_20ms"] = 0.3
        if task == "musdb18":
            values["sdr_vocals_museval"] = 4.0
        if task not in without:
            entries[task] = entry(task, values, protocol, "weighted")
    return entries


@pytest.fixture
def fourteen_run(tmp_path: Path) -> Layout:
    """Two runs and a baseline on the fourteen: one run complete, the other without keys; one baseline is missing."""
    layout = Layout.at(tmp_path)
    write_scores(layout, "95m", None, real(0.2))
    write_scores(layout, "tiny", None, real(0.1, without=("gs_key",)))
    write_scores(layout, "random-weights", None, real(0.0))
    return layout


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def scores_of(layout: Layout) -> list[Scores]:
    return [read_scores(layout, path.name) for path in sorted((layout.root / "data/probe").iterdir())]


def test_csv_read_back_equals_every_number(pipeline: Layout) -> None:
    rows = rows_of(leaderboard(pipeline, "csv", demo=True))
    scored = {(row["task"], row["metric"], row["model"]): row for row in rows if row["task"] != "average"}
    assert set(scored) == {
        (task, metric, run)
        for task in PROXY_TASKS
        for metric in METRICS[task.removeprefix("demo/")]
        for run in ("tiny", "95m", *BASELINES)
    }
    for (task, metric, run), row in scored.items():
        unit = 1 if metric.startswith("sdr") else 100
        assert row["unit"] == ("dB" if unit == 1 else "%")
        estimate = read_scores(pipeline, run).tasks[task]["metrics"][metric]
        assert float(row["value"]) == unit * estimate["value"] == unit * value_of(run, task, metric)
        assert (float(row["low"]), float(row["high"])) == (unit * estimate["low"], unit * estimate["high"])
        assert row["protocol"] == PROTOCOL
        assert row["input"] == str(read_scores(pipeline, run).tasks[task]["input"])


def test_text_and_html_show_the_numbers_of_the_csv(pipeline: Layout, fourteen_run: Layout) -> None:
    for layout, demo in ((pipeline, True), (fourteen_run, False)):
        rows = rows_of(leaderboard(layout, "csv", demo=demo))
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
        scores = scores_of(layout)
        demo, main_table = proxy_board(scores), fourteen_board(scores)
        assert all(column.ours for column in demo.columns)
        assert not any(row.task.startswith("demo/") for row in main_table.lines)
        assert all(row.task.startswith("demo/") for row in demo.lines)
        assert {row["kind"] for row in rows_of(as_csv(demo))} <= {"run", "baseline"}
        assert "arXiv" not in as_csv(demo) + as_text(demo, 200) + leaderboard_page([demo])
        assert "demo/" not in as_csv(main_table) + as_text(main_table, 200) + leaderboard_page([main_table])
    for table in re.findall(r"<table.*?</table>", leaderboard(pipeline, "html"), re.DOTALL):
        assert not ("demo/" in table and "MERT-" in table)


def test_published_rows_have_their_source(fourteen_run: Layout) -> None:
    rows = rows_of(leaderboard(fourteen_run, "csv"))
    named = "source", "model", "task", "metric"
    theirs = {tuple(row[name] for name in named): row for row in rows if row["kind"] == "published"}
    for figure in published():
        row = theirs[figure.source, figure.model, figure.task, figure.metric]
        assert (row["state"], float(row["value"]), row["low"]) == ("published", figure.value, "")
    text, html = leaderboard(fourteen_run), Page(leaderboard(fourteen_run, "html")).text
    for source in {figure.source for figure in published()}:
        assert source in text
        assert source in html


def test_the_average_stands_only_where_all_is_there(fourteen_run: Layout) -> None:
    means = {row["model"]: row for row in rows_of(leaderboard(fourteen_run, "csv")) if row["task"] == "average"}
    expected = []
    for metrics in fourteen_metrics().values():
        values = [
            (5.2 if name.startswith("sdr") else 80) + (0.01 if name.startswith("sdr") else 1) * index
            for index, name in enumerate(metrics)
        ]
        expected.append(sum(values) / len(values))
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
    means = {row["model"]: row for row in rows_of(leaderboard(layout, "csv", demo=True)) if row["task"] == "average"}
    assert means["tiny"]["reason"] == "demo/emo r2_density"
    assert means["tiny"]["value"] == ""
    assert means["random-weights"]["value"] != ""


def test_missing_and_skipped_cells_say_why(fourteen_run: Layout) -> None:
    rows = {(row["task"], row["metric"], row["model"]): row for row in rows_of(leaderboard(fourteen_run, "csv"))}
    key = rows["gs_key", "weighted_score", "tiny"]
    assert (key["state"], key["value"], key["reason"]) == ("skipped", "", NO_DATA)
    baseline = rows["gs_key", "weighted_score", "mel-statistics"]  # stands there although nobody probed it
    assert (baseline["state"], baseline["reason"]) == ("missing", "not probed")
    assert rows["musdb18", "sdr_vocals", "CLMR"]["state"] == "missing"
    text = leaderboard(fourteen_run, width=10_000)
    line = next(row for row in text.splitlines() if row.startswith("gs_key"))
    assert "skipped" in line
    assert f"Skipped: gs_key (tiny): {NO_DATA}" in text
    html = leaderboard(fourteen_run, "html")
    assert re.search(rf"<td class=\"skipped run\"[^>]*><strong>skipped</strong> {NO_DATA}</td>", html)


def test_marks_need_the_same_protocol(fourteen_run: Layout) -> None:
    rows = {(row["task"], row["metric"], row["model"]): row for row in rows_of(leaderboard(fourteen_run, "csv"))}
    assert rows["mtt", "ap", "95m"]["above_baselines"] == "true"
    assert {row["comparable"] for row in rows.values()} == {"true", ""}
    write_scores(fourteen_run, "95m", None, real(0.2, protocol=OTHER))
    rows = {(row["task"], row["metric"], row["model"]): row for row in rows_of(leaderboard(fourteen_run, "csv"))}
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
    assert shown.open == []
    assert shown.sources == []
    assert "http" not in raw
    assert 'name="viewport"' in raw
    assert all(box in raw for box in ('<div class="scroll"><table class="board">', "Fourteen tasks", "Proxy tasks"))
    for table in re.findall(
        r"<table.*?</table>", raw, re.DOTALL
    ):  # every row covers every column, merged cells counted
        widths, hanging = [], {}
        for number, row in enumerate(re.findall(r"<tr.*?</tr>", table, re.DOTALL)):
            cells = re.findall(r"<t[hd]([^>]*)>", row)
            spans = [int((re.search(r'colspan="(\d+)"', cell) or [0, 1])[1]) for cell in cells]
            widths.append(sum(spans) + hanging.get(number, 0))
            for cell, span in zip(cells, spans, strict=True):
                for below in range(1, int((re.search(r'rowspan="(\d+)"', cell) or [0, 1])[1])):
                    hanging[number + below] = hanging.get(number + below, 0) + span
        assert len(set(widths)) == 1


def test_the_command_prints_or_writes(pipeline: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = str(Path(__file__).parents[2] / "params.yaml")
    common = ["leaderboard", "--workdir", str(pipeline.root), "--params", params]
    assert main([*common, "--demo"]) == 0
    assert capsys.readouterr().out == leaderboard(pipeline, demo=True)
    assert main([*common, "--format", "csv", "--out", str(tmp_path / "board.csv")]) == 0
    assert (tmp_path / "board.csv").read_text() == leaderboard(pipeline, "csv")
    assert main([*common, "--out", str(tmp_path / "new" / "folder" / "b.txt")]) == 0
    assert (tmp_path / "new" / "folder" / "b.txt").read_text() == leaderboard(pipeline)
    assert main([*common, "--out", str(tmp_path / "board.csv" / "b.txt")]) == 2
    assert "board.csv" in capsys.readouterr().err
    assert set(PUBLIC_TASKS) <= {row["task"] for row in rows_of(leaderboard(pipeline, "csv"))}


def test_nothing_probed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="nothing has been probed"):
        leaderboard(Layout.at(tmp_path))


def test_scores_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    layout = write_pipeline(tmp_path)
    path = layout.scores("tiny") / "scores.json"
    path.write_text(path.read_text().replace('"protocol"', '"layer"'))
    with pytest.raises(MertError, match=r"scores\.json: demo/emo has no protocol"):
        leaderboard(layout)
