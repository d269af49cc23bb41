from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.lineage.catalog import score_id
from mert_core.paths import Layout
from mert_core.report import stage
from mert_core.report.board import Column, proxy_board
from mert_core.report.load import load_report, read_scores
from mert_core.report.pages import report_page
from mert_core.tracking import NullTracker
from tests.report.made_up import (
    BASELINES,
    CODEBOOKS,
    METRICS,
    PARAMS,
    PROXY_TASKS,
    Page,
    entry,
    value_of,
    write_corpus,
    write_pipeline,
    write_scores,
    write_targets,
    write_training,
)

FIGURES = {
    "scores.png",
    "layers.png",
    "robustness.png",
    "loss.png",
    "usage-rvqvae.png",
    "cqt-tiny.png",
    "teacher-rvqvae.png",
}


def page_of(layout: Layout) -> str:
    return Page((layout.report / "report.html").read_text()).text


def plot(layout: Layout, name: str) -> list[dict[str, str]]:
    with (layout.report / "plots" / name).open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def reported(config: Config, pipeline: Layout) -> Layout:
    stage.run(config, pipeline, NullTracker())
    return pipeline


def test_the_page_is_one_whole_file_with_all_of_it(reported: Layout) -> None:
    raw = (reported.report / "report.html").read_text()
    page = Page(raw)
    assert page.open == []
    assert len(page.sources) == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not any(text in raw for text in ("http://", "https://", str(reported.root)))
    scores, targets = read_record(reported.scores("tiny")), read_record(reported.targets("rvqvae"))
    for text in (
        "tiny beats random weights on 3 of 14 proxy tasks (demo/gs_key, demo/emo, demo/nsynth_pitch)",
        "tiny beats mel statistics on 3 of 14 proxy tasks (demo/gs_key, demo/emo, demo/musdb18)",
        "Skipped: gs_key (tiny, random-weights, mel-statistics): no folder is given for giantsteps",
        *PROXY_TASKS,
        "interval against interval",
        "49.0 to 55.0",
        "CC0 & more",
        "broken/track 0.wav",
        f"codebook {CODEBOOKS - 1}",
        *(scores.id, targets.id, score_id(scores.id, "demo/gs_key"), "7e" * 32),
    ):
        assert text in page.text


def test_metrics_have_the_agreed_shape(reported: Layout) -> None:
    metrics = json.loads(reported.metrics.read_text())
    assert set(metrics["probe"]) == {"tiny", "random-weights", "mel-statistics"}
    key = metrics["probe"]["tiny"]["demo/gs_key"]["weighted_score"]
    assert key == {"value": 0.52, "low": pytest.approx(0.49), "high": pytest.approx(0.55)}
    names = {task: set(scores) for task, scores in metrics["probe"]["tiny"].items()}
    means = {"emo": {"r2"}, "musdb18": {"sdr"}}  # their main metrics
    assert names == {f"demo/{task}": set(values) | means.get(task, set()) for task, values in METRICS.items()}
    assert metrics["pretrain"]["tiny"]["rvqvae"] < metrics["pretrain"]["tiny"]["rvqvae_unigram"]
    assert metrics["beats"] == {"tiny": {"random-weights": 3, "mel-statistics": 3}}


def test_plots_are_numbers_by_step(reported: Layout) -> None:
    rows = plot(reported, "tiny/valid.csv")
    assert [int(row["step"]) for row in rows] == list(range(100, 1001, 100))
    assert float(rows[-1]["rvqvae"]) < float(rows[0]["rvqvae"]) < float(rows[0]["rvqvae_unigram"])
    scores = plot(reported, "scores.csv")
    assert {(row["task"], row["encoder"], row["metric"]): float(row["value"]) for row in scores} == {
        (task, run, metric): value_of(run, task, metric)
        for run in ("tiny", "random-weights", "mel-statistics")
        for task in PROXY_TASKS
        for metric in METRICS[task.removeprefix("demo/")]
    }
    points = [
        row for row in plot(reported, "robustness.csv") if (row["encoder"], row["task"]) == ("tiny", "demo/gs_key")
    ]
    assert {row["deformation"] for row in points} == {"noise", "gain", "mp3", "lowpass"}
    assert {float(row["value"]) for row in points if row["label"] == "clean"} == {0.52}


def test_the_record_names_every_input_and_the_bytes_are_stable(config: Config, reported: Layout) -> None:
    first = read_record(reported.report)
    encoders = ("tiny", "random-weights", "mel-statistics")
    assert set(first.inputs) == {
        "corpus",
        "targets/rvqvae",
        "checkpoint/tiny",
        *(f"scores/{name}" for name in encoders),
    }
    assert {path.name for path in (reported.report / "figures").iterdir()} == FIGURES
    assert stage.run(config, reported, NullTracker()) == first


def test_two_runs_a_folder_without_losses_and_one_of_the_fourteen(tmp_path: Path) -> None:
    layout = write_pipeline(tmp_path, runs=("tiny", "95m"), source="folder", left_out=0)
    for run in ("tiny", "95m", *BASELINES):
        pitch = {"nsynth_pitch": entry("nsynth_pitch", {"accuracy": 0.4 if run in BASELINES else 0.7})}
        checkpoint = None if run in BASELINES else read_record(layout.model(run))
        write_scores(layout, run, checkpoint, read_scores(layout, run).tasks | pitch)
    config = load_config(PARAMS, ["report.runs=[tiny, 95m]", "report.teachers=[rvqvae]"])
    stage.run(config, layout, NullTracker())
    page = page_of(layout)
    assert "95m beats mel statistics on 3 of 14 proxy tasks" in page
    assert "tiny beats random weights on 1 of 1 tasks (nsynth_pitch)" in page
    assert json.loads(layout.metrics.read_text())["beats"]["tiny"]["random-weights"] == 4
    assert "every file could be used" in page
    assert "44,100 Hz (200)" in page
    names = {path.name for path in (layout.report / "figures").iterdir()}
    assert {"cqt-tiny.png", "cqt-95m.png"} <= names
    # The fourteen have figures of their own, and nothing was deformed for them.
    assert {"scores.png", "scores-fourteen.png", "layers.png", "layers-fourteen.png", "robustness.png"} <= names
    assert "robustness-fourteen.png" not in names


def test_scores_of_another_protocol_are_called_not_comparable(tmp_path: Path, config: Config) -> None:
    layout = write_pipeline(tmp_path)
    scores = layout.scores("mel-statistics") / "scores.json"
    tree = json.loads(scores.read_text())
    tree["tasks"]["demo/emo"]["protocol"] = "0f" * 32
    scores.write_text(json.dumps(tree))
    data = load_report(config, layout)
    text = Page(report_page(data, [])).text
    assert "Not comparable: mel-statistics was probed by another protocol or on other music at demo/emo." in text
    assert "tiny beats mel statistics on 2 of 13 proxy tasks (demo/gs_key, demo/musdb18)" in text
    assert "tiny beats random weights on 3 of 14 proxy tasks" in text
    board = proxy_board(data.scores)
    averages = {column.model: mean.value for column, mean in zip(board.columns, board.averages, strict=True)}
    assert averages["mel-statistics"] is None


def test_a_run_without_training_or_scores_is_a_row_that_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = write_pipeline(tmp_path)
    for run in ("95m", "skips"):
        write_training(layout, run, read_record(layout.targets("rvqvae")))
    write_scores(layout, "skips", None, {})
    runs = ["tiny", "95m", "330m", "skips"]
    changes = ["runs=" + str({name: {} for name in runs}), f"report.runs={runs}", "report.teachers=[rvqvae]"]
    config = load_config(PARAMS, changes)
    record = stage.run(config, layout, NullTracker())
    page = page_of(layout)
    assert "95m is not probed yet" in page and "330m is not pre-trained yet" in page
    assert "skips is probed on nothing: every task was skipped" in page
    assert "tiny beats random weights on 3 of 14 proxy tasks" in page
    assert ["95m" in text for text in caplog.messages if "not probed yet" in text] == [True]
    assert {"checkpoint/95m", "scores/tiny"} <= set(record.inputs)
    assert not {"checkpoint/330m", "scores/95m"} & set(record.inputs)
    assert set(json.loads(layout.metrics.read_text())["probe"]) == {"tiny", "skips", *BASELINES}
    data = load_report(config, layout)
    assert Column("95m", "run") in proxy_board(data.scores, data.pending).columns


def test_before_anything_is_trained_there_is_a_report(tmp_path: Path, config: Config) -> None:
    layout = Layout.at(tmp_path)
    write_targets(layout, write_corpus(layout))
    stage.run(config, layout, NullTracker())
    page = page_of(layout)
    assert "tiny is not pre-trained yet random-weights is not probed yet mel-statistics is not probed yet" in page
    assert json.loads(layout.metrics.read_text())["probe"] == {}


def test_what_comes_from_outside_is_escaped(tmp_path: Path, config: Config) -> None:
    layout = write_pipeline(tmp_path)
    data = load_report(config, layout)
    row = {"path": "<script>.wav", "reason": "silent", "detail": "\"'&"}
    raw = report_page(replace(data, quarantine=[row]), [])
    assert "<script>" not in raw and "&lt;script&gt;.wav" in raw
    assert "\"'&" not in raw


def test_what_is_missing_is_named_and_nothing_is_left_behind(tmp_path: Path, config: Config) -> None:
    layout = write_pipeline(tmp_path)
    (layout.scores("mel-statistics") / "layers.json").write_text("{")
    with pytest.raises(MertError, match=r"layers\.json cannot be read"):
        stage.run(config, layout, NullTracker())
    (layout.scores("random-weights") / "record.json").unlink()
    with pytest.raises(MertError, match="random-weights"):
        stage.run(config, layout, NullTracker())
    assert not layout.report.exists()
    assert not layout.metrics.exists()
