from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.report.figures.probes import layer_guide, robustness_curves, scores_against_baselines
from mert_core.report.figures.style import look, save_png
from mert_core.report.figures.training import (
    brightness_rank,
    codebook_gain,
    loss_by_term,
    spectrum_example,
    teacher_example,
    usage,
)
from mert_core.report.load import Labels, ReportData, Scores, load_report, read_scores
from tests.report.made_up import DEFORMED, PROXY_TASKS, entry, write_pipeline


@pytest.fixture(scope="module")
def data(config: Config, pipeline: Layout) -> ReportData:
    return load_report(config, pipeline)


@pytest.fixture(autouse=True)
def house_style() -> Iterator[None]:
    with look():
        yield


def assert_readable(figure: Figure | None) -> None:
    """Assert that every visible text lies on the page, and that no two overlap by more than a pixel's breadth."""
    assert figure is not None
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    undrawn = set()  # matplotlib also keeps the labels of ticks beyond the ends of an axis
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        undrawn |= {tick.label1 for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    texts = [item for item in figure.findobj(Text) if item not in undrawn]
    visible = [item for item in texts if item.get_visible() and item.get_text().strip()]
    page = figure.bbox
    boxes = [(item.get_text(), item.get_window_extent(renderer)) for item in visible]
    boxes = [(text, box) for text, box in boxes if box.overlaps(page)]
    assert all(page.contains(box.x0 + 1, box.y0 + 1) and page.contains(box.x1 - 1, box.y1 - 1) for _, box in boxes)
    for (text, box), (other, rival) in combinations(boxes, 2):
        wide = min(box.x1, rival.x1) - max(box.x0, rival.x0)
        high = min(box.y1, rival.y1) - max(box.y0, rival.y0)
        assert not (wide > 2 and high > 2), f"{text!r} overlaps {other!r}"


def test_no_text_overlaps_or_leaves_the_figure(data: ReportData) -> None:
    labels = data.labels[0]
    assert_readable(scores_against_baselines(data.scores, data.tasks))
    assert_readable(layer_guide(data.scores, data.tasks))
    assert_readable(robustness_curves(data.scores, data.tasks))
    assert_readable(loss_by_term(data.trainings))
    assert_readable(spectrum_example(data.trainings[0], "cqt", 4.0))
    assert_readable(usage(labels))
    assert_readable(teacher_example(labels))
    for bins in (48, 128, 336):
        example = {**labels.example, "targets": np.resize(labels.example["log_mel"], (450, bins))}
        assert_readable(teacher_example(replace(labels, teacher="a-long-name", example=example)))


def test_the_cqt_axis_is_in_hertz_and_the_example_is_cut(data: ReportData) -> None:
    upper, strip, _ = spectrum_example(data.trainings[0], "cqt", 1.0).axes[:3]
    assert upper.get_images()[0].get_array().shape == (336, 75)
    assert strip.get_images()[0].get_array().shape == (1, 75)
    labels = dict(zip([text.get_text() for text in upper.get_yticklabels()], upper.get_yticks(), strict=True))
    assert labels["440"] == pytest.approx(48 * np.log2(440 / 32.7))
    assert labels["880"] - labels["440"] == pytest.approx(48)


def test_a_codes_color_is_the_brightness_of_its_frames() -> None:
    low, high = np.eye(128)[[10, 90]]
    codes, music = np.array([7, 3, 7, 5]), np.stack([high, low, high, (low + high) / 2])
    assert brightness_rank(codes, music).tolist() == [1.0, 0.0, 1.0, 0.5]


def test_an_example_shows_every_frame_under_its_sound(data: ReportData) -> None:
    example = data.labels[0].example
    upper, lower = teacher_example(data.labels[0]).axes
    assert upper.get_images()[0].get_array().shape == (128, 450)
    assert lower.get_images()[0].get_array().shape == (example["targets"].shape[1], 450)
    assert upper.get_images()[0].get_extent()[:2] == lower.get_images()[0].get_extent()[:2] == [0.0, 6.0]


def test_gain_and_usage_are_computed_from_the_data(data: ReportData) -> None:
    gain = codebook_gain(data.trainings[0], "rvqvae")
    assert gain[0] == pytest.approx(1.5 * (1 - np.exp(-1000 / 260)))
    assert np.all(np.diff(gain) < 0)
    shares = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    labels = Labels("rvqvae", "2 × 4 codes", None, [], shares, {})
    assert labels.entropy_bits == pytest.approx([2.0, 0.0])
    assert labels.used_share == pytest.approx([1.0, 0.25])


def test_many_layers_and_no_layers(data: ReportData) -> None:
    tiny = data.scores[0]
    deep = {task: [*((layer, 0.3 + 0.01 * layer) for layer in range(25)), ("weighted", 0.5)] for task in PROXY_TASKS}
    flat = {task: [(0, 0.3)] for task in PROXY_TASKS}
    for count in (1, 3):
        figure = layer_guide([Scores("tiny", tiny.record, tiny.tasks, deep)] * count, PROXY_TASKS)
        assert_readable(figure)
    assert layer_guide([Scores("tiny", tiny.record, tiny.tasks, flat)], PROXY_TASKS) is None


def test_the_layer_guide_frames_what_was_chosen(data: ReportData) -> None:
    tiny = data.scores[0]
    axes = layer_guide(data.scores, PROXY_TASKS).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3", "4", "sum"]
    framed = [round(patch.get_x() + 0.45) for patch in axes.patches]
    chosen = [tiny.tasks[task]["input"] for task in PROXY_TASKS]
    assert framed == [5 if state == "weighted" else state for state in chosen]
    assert "weighted" in chosen and 0 in chosen
    shown = {text.get_text() for text in axes.texts}
    assert f"{dict(tiny.layers['demo/gs_key'])['weighted']:.3f}" in shown


def test_separation_has_an_axis_of_its_own_and_r2_may_be_negative(data: ReportData) -> None:
    shares, decibels = scores_against_baselines(data.scores, PROXY_TASKS).axes
    assert shares.get_xlim()[0] < -0.28  # random weights' R²
    assert [text.get_text() for text in decibels.get_yticklabels()] == ["demo/musdb18\nSDR, mean"]
    assert "dB" in decibels.get_xlabel() and "dB" not in shares.get_xlabel()
    assert "−0.280" in {text.get_text() for text in shares.texts}


def test_an_r2_far_below_zero_does_not_squeeze_the_others(data: ReportData) -> None:
    bad = entry("demo/emo", {"r2_brightness": -40.0, "r2_density": -2.0})
    scores = [Scores(item.run, item.record, item.tasks | {"demo/emo": bad}, item.layers) for item in data.scores]
    figure = scores_against_baselines(scores, ["demo/gs_key", "demo/emo"])
    assert_readable(figure)
    assert figure.axes[0].get_xlim()[0] == -0.5
    assert "−21.000" in {text.get_text() for text in figure.axes[0].texts}


def test_robustness_draws_every_point_and_only_what_is_there(data: ReportData) -> None:
    figure = robustness_curves(data.scores, PROXY_TASKS)
    assert robustness_curves(data.scores, ["demo/emo"]) is None
    tiny = data.scores[0].robustness
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    probed = [(task, kind) for task in DEFORMED for kind in DEFORMATIONS if kind in tiny[task]]
    assert len(drawn) == len(probed) == 4 + 5 + 4
    for axes, (task, kind) in zip(drawn, probed, strict=True):
        assert axes.lines[0].get_ydata().tolist() == [point["value"] for point in tiny[task][kind]]
        labels = [text.get_text() for text in axes.get_xticklabels()]
        # Levels stand below the last panel of each deformation; the last task has none for pitch.
        is_last = (task, kind) in {("demo/nsynth_pitch", kind), ("demo/gtzan_genre", "pitch")}
        assert labels == (
            [point["label"].split(" ")[0] for point in tiny[task][kind]] if is_last else [""] * len(labels)
        )


def test_many_runs_and_deformations_do_not_overlap(tmp_path: Path) -> None:
    layout = write_pipeline(tmp_path, runs=("tiny", "95m"))
    scores = [read_scores(layout, run) for run in ("tiny", "95m", "random-weights", "mel-statistics")]
    for item in scores:
        item.robustness["demo/gs_key"] |= {"reverb": item.robustness["demo/gs_key"]["gain"]}
        for task in ("demo/vocalset_technique", "demo/nsynth_instrument", "demo/gtzan_rhythm"):
            item.robustness[task] = {"noise": item.robustness["demo/gs_key"]["noise"]}
    assert_readable(robustness_curves(scores, PROXY_TASKS))
    assert_readable(layer_guide(scores, PROXY_TASKS))
    assert_readable(scores_against_baselines(scores, PROXY_TASKS))


def test_png_bytes_do_not_depend_on_the_machine(
    data: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    with look():
        save_png(usage(data.labels[0]), tmp_path / "a.png")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    with look():
        save_png(usage(data.labels[0]), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
