"""The published figures, and MARBLE's average of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.errors import MertError
from mert_core.probing.tasks import PUBLIC_TASKS
from mert_core.report.published import TABLE, average, counts, fourteen_metrics, published


def of(model: str) -> dict[tuple[str, str], float]:
    return {(figure.task, figure.metric): figure.value for figure in published() if figure.model == model}


def test_every_figure_is_read_under_our_names() -> None:
    figures = published()
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert len(figures) == len(lines) - 1 == 260
    assert {figure.task for figure in figures} == set(PUBLIC_TASKS)
    assert "weighted" not in {figure.metric for figure in figures}
    stems = {"vocals": 5.5, "drums": 5.5, "bass": 3.8, "other": 3.1}
    expected = {("musdb18", f"sdr_{stem}"): value for stem, value in stems.items()} | {
        ("gs_key", "weighted_score"): 63.5
    }
    assert expected.items() <= of("MERT-v1-95M").items()
    assert all("arXiv:" in source for source in {figure.source for figure in figures})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,model,task,value\n", "has the columns source, model, task, value"),
        ("source,model,task,metric,value\np,m,beatbox,ap,1\n", "line 2: the task is 'beatbox'"),
        ("source,model,task,metric,value\np,m,mtt,ap,high\n", "the value is 'high'"),
        ("source,model,task,metric,value\np,m,mtt,ap,1\np,m,mtt,ap,2\n", "two figures of p · m · mtt · ap"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MertError, match=message):
        published(tmp_path / "t.csv")


def test_marbles_average_of_complete_rows() -> None:
    # By hand, from the paper's row of MERT-v1-95M: one mean per task, in MARBLE's order.
    means = [(91.0 + 39.3) / 2, 63.5, 74.8, 88.3, (55.5 + 76.3) / 2, 70.7, 92.6, 74.2, 83.7]
    means += [(77.5 + 19.4) / 2, (76.4 + 13.4) / 2, (87.1 + 18.8) / 2, (83.0 + 29.0) / 2, (5.5 + 5.5 + 3.8 + 3.1) / 4]
    assert average(of("MERT-v1-95M"), fourteen_metrics()).value == pytest.approx(sum(means) / 14)
    models = dict.fromkeys(figure.model for figure in published())
    complete = [model for model in models if average(of(model), fourteen_metrics()).value is not None]
    assert complete == ["Music2Vec", "MERT-v0-95M", "MERT-v0-public", "MERT-v1-95M", "MERT-v1-330M", "previous SOTA"]


@pytest.mark.parametrize(("task", "metric"), [(t, m) for t, ms in fourteen_metrics().items() for m in ms])
def test_one_missing_metric_leaves_no_average(task: str, metric: str) -> None:
    figures = of("MERT-v1-330M")
    del figures[task, metric]
    mean = average(figures, fourteen_metrics())
    assert mean.value is None
    assert mean.missing == (f"{task} {metric}",)
    assert f"{task} {metric}" in mean.note


def test_what_is_reported_beside_does_not_count() -> None:
    figures = of("MERT-v1-330M")
    before = average(figures, fourteen_metrics())
    figures["gtzan_rhythm", "f_measure_20ms"] = 0.0
    figures["musdb18", "sdr_vocals_museval"] = 99.0
    assert average(figures, fourteen_metrics()) == before
    assert not counts("f_measure_20ms") and not counts("sdr_vocals_museval")
    assert all(counts(metric) for metrics in fourteen_metrics().values() for metric in metrics)


def test_a_task_without_any_metric_is_missing() -> None:
    assert average({("a", "x"): 1.0}, {"a": ["x"], "b": []}).missing == ("b",)
    assert average({}, {}).value is None
