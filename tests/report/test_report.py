from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import CODEBOOKS, PARAMS, TASKS, VALUES, write_line

from mert_core.catalog import score_id
from mert_core.config import Config, load_config
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.records import read_record
from mert_core.report import stage
from mert_core.tracking import NullTracker

FIGURES = {
    "scores.png", "layers.png", "loss.png", "usage-rvqvae.png", "cqt-tiny.png", "teacher-rvqvae.png",
}  # fmt: skip


class Page(HTMLParser):
    """Collects what the page shows and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def reported(config: Config, line: Layout) -> Layout:
    stage.run(config, line, NullTracker())
    return line


def test_the_page_is_one_whole_file_with_all_of_it(reported: Layout) -> None:
    page = Page(reported.report / "report.html")
    assert page.open == []
    assert len(page.sources) == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    raw = (reported.report / "report.html").read_text()
    assert "http://" not in raw
    assert "https://" not in raw
    assert str(reported.root) not in raw
    assert "tiny beats random weights on 3 of 4 (key, pitch, family)" in page.text
    assert "tiny beats mel statistics on 1 of 4 (key)" in page.text
    assert "interval against interval" in page.text
    assert "0.490 – 0.550" in page.text
    assert "CC0 & more" in page.text
    assert "broken/track 0.wav" in page.text
    assert f"codebook {CODEBOOKS - 1}" in page.text
    scores = read_record(reported.scores("tiny"))
    for identity in (scores.id, read_record(reported.targets("rvqvae")).id, score_id(scores.id, "key"), "7e" * 32):
        assert identity in page.text


def test_metrics_have_the_agreed_shape(reported: Layout) -> None:
    metrics = json.loads(reported.metrics.read_text())
    assert set(metrics["probe"]) == {"tiny", "random-weights", "mel-statistics"}
    key = metrics["probe"]["tiny"]["key"]["weighted_score"]
    assert key == {"value": 0.52, "low": pytest.approx(0.49), "high": pytest.approx(0.55)}
    assert {task: next(iter(found)) for task, found in metrics["probe"]["tiny"].items()} == TASKS
    assert metrics["pretrain"]["tiny"]["rvqvae"] < metrics["pretrain"]["tiny"]["rvqvae_unigram"]
    assert metrics["beats"] == {"tiny": {"random-weights": 3, "mel-statistics": 1}}


def test_plots_are_numbers_by_step(reported: Layout) -> None:
    with (reported.report / "plots" / "tiny" / "valid.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(100, 1001, 100))
    assert float(rows[-1]["rvqvae"]) < float(rows[0]["rvqvae"]) < float(rows[0]["rvqvae_unigram"])
    with (reported.report / "plots" / "scores.csv").open() as stream:
        found = {(row["task"], row["encoder"]): float(row["value"]) for row in csv.DictReader(stream)}
    runs = ("tiny", "random-weights", "mel-statistics")
    assert found == {(task, run): VALUES[run][task] for run in runs for task in TASKS}


def test_the_record_names_every_input_and_the_bytes_are_stable(config: Config, reported: Layout) -> None:
    first = read_record(reported.report)
    assert set(first.inputs) == {
        "corpus", "targets/rvqvae", "checkpoint/tiny", "scores/tiny", "scores/random-weights", "scores/mel-statistics",
    }  # fmt: skip
    pictures = {path.name: sha256_file(path) for path in (reported.report / "figures").iterdir()}
    assert set(pictures) == FIGURES
    again = stage.run(config, reported, NullTracker())
    assert again == first


def test_two_runs_and_a_folder_without_losses_of_files(tmp_path: Path) -> None:
    layout = write_line(tmp_path, runs=("tiny", "95m"), source="folder", left_out=0)
    config = load_config(PARAMS, ["report.runs=[tiny, 95m]", "report.teachers=[rvqvae]"])
    stage.run(config, layout, NullTracker())
    page = Page(layout.report / "report.html")
    assert "95m beats mel statistics on 2 of 4" in page.text
    assert "every file could be used" in page.text
    assert "44,100 Hz (200)" in page.text
    assert {"cqt-tiny.png", "cqt-95m.png"} <= {path.name for path in (layout.report / "figures").iterdir()}


def test_scores_of_another_protocol_are_called_not_comparable(tmp_path: Path, config: Config) -> None:
    layout = write_line(tmp_path)
    record = layout.scores("mel-statistics") / "record.json"
    record.write_text(record.read_text().replace('"protocol": "p"', '"protocol": "q"'))
    stage.run(config, layout, NullTracker())
    assert "Not comparable: mel-statistics" in Page(layout.report / "report.html").text


def test_what_is_missing_is_named_and_nothing_is_left_behind(tmp_path: Path, config: Config) -> None:
    layout = write_line(tmp_path)
    (layout.scores("mel-statistics") / "layers.json").write_text("{")
    with pytest.raises(MertError, match=r"layers\.json cannot be read"):
        stage.run(config, layout, NullTracker())
    (layout.scores("random-weights") / "record.json").unlink()
    with pytest.raises(MertError, match="random-weights"):
        stage.run(config, layout, NullTracker())
    assert not layout.report.exists()
    assert not layout.metrics.exists()
