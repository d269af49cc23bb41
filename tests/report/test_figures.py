from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up import DEFORMED, STAND_INS, entry, write_line
from matplotlib.figure import Figure
from matplotlib.text import Text

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.report.figures.probes import layer_guide, robustness_curves, scores_against_floors
from mert_core.report.figures.style import look, save_png
from mert_core.report.figures.targets import brightness_rank, entropy_bits, teacher_example, usage, used_share
from mert_core.report.figures.training import codebook_gain, cqt_example, loss_by_term
from mert_core.report.load import ReportData, Scores, collect, read_scores


@pytest.fixture(scope="module")
def material(config: Config, line: Layout) -> ReportData:
    return collect(config, line)


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Return pairs of visible texts whose boxes overlap by more than a pixel's breadth."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    undrawn = set()  # matplotlib also keeps the labels of ticks beyond the ends of an axis
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            undrawn |= {tick.label1 for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    texts = [item for item in figure.findobj(Text) if item not in undrawn]
    found = [item for item in texts if item.get_visible() and item.get_text().strip()]
    boxes = [(item.get_text(), item.get_window_extent(renderer)) for item in found]
    page = figure.bbox
    boxes = [(text, box) for text, box in boxes if box.overlaps(page)]
    assert all(page.contains(box.x0 + 1, box.y0 + 1) and page.contains(box.x1 - 1, box.y1 - 1) for _, box in boxes)
    pairs = []
    for index, (text, box) in enumerate(boxes):
        for other, rival in boxes[index + 1 :]:
            wide = min(box.x1, rival.x1) - max(box.x0, rival.x0)
            high = min(box.y1, rival.y1) - max(box.y0, rival.y0)
            if wide > 2 and high > 2:
                pairs.append((text, other))
    return pairs


def test_no_text_overlaps_or_leaves_the_figure(material: ReportData) -> None:
    with look():
        assert overlapping_texts(scores_against_floors(material.scores, material.tasks)) == []
        assert overlapping_texts(layer_guide(material.scores, material.tasks)) == []
        assert overlapping_texts(robustness_curves(material.scores, material.tasks)) == []
        assert overlapping_texts(loss_by_term(material.trainings)) == []
        assert overlapping_texts(cqt_example(material.trainings[0], 4.0)) == []
        assert overlapping_texts(usage(material.labels[0].usage)) == []
        example = material.labels[0].example
        assert overlapping_texts(teacher_example("rvqvae", example)) == []
        for bins in (48, 128, 336):
            spectrum = np.resize(example["log_mel"], (450, bins))
            assert overlapping_texts(teacher_example("a-long-name", {**example, "targets": spectrum})) == []


def test_the_cqt_axis_is_in_hertz_and_the_example_is_cut(material: ReportData) -> None:
    with look():
        upper, strip, _ = cqt_example(material.trainings[0], 1.0).axes[:3]
    assert upper.get_images()[0].get_array().shape == (336, 75)
    assert strip.get_images()[0].get_array().shape == (1, 75)
    labels = dict(zip([text.get_text() for text in upper.get_yticklabels()], upper.get_yticks(), strict=True))
    assert labels["440"] == pytest.approx(48 * np.log2(440 / 32.7))
    assert labels["880"] - labels["440"] == pytest.approx(48)


def test_a_codes_colour_is_the_brightness_of_its_frames() -> None:
    low, high = np.eye(128)[[10, 90]]
    codes, music = np.array([7, 3, 7, 5]), np.stack([high, low, high, (low + high) / 2])
    assert brightness_rank(codes, music).tolist() == [1.0, 0.0, 1.0, 0.5]


def test_an_example_shows_every_frame_under_its_sound(material: ReportData) -> None:
    example = material.labels[0].example
    with look():
        upper, lower = teacher_example("rvqvae", example).axes
    assert upper.get_images()[0].get_array().shape == (128, 450)
    assert lower.get_images()[0].get_array().shape == (example["targets"].shape[1], 450)
    assert upper.get_images()[0].get_extent()[:2] == lower.get_images()[0].get_extent()[:2] == [0.0, 6.0]


def test_gain_and_usage_are_computed_from_the_data(material: ReportData) -> None:
    gain = codebook_gain(material.trainings[0], "rvqvae")
    assert gain[0] == pytest.approx(1.5 * (1 - np.exp(-1000 / 260)))
    assert np.all(np.diff(gain) < 0)
    shares = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    assert entropy_bits(shares) == pytest.approx([2.0, 0.0])
    assert used_share(shares) == pytest.approx([1.0, 0.25])


def test_many_layers_and_no_layers(material: ReportData) -> None:
    tiny = material.scores[0]
    deep = {task: [*((layer, 0.3 + 0.01 * layer) for layer in range(25)), ("weighted", 0.5)] for task in STAND_INS}
    flat = {task: [(0, 0.3)] for task in STAND_INS}
    with look():
        for count in (1, 3):
            figure = layer_guide([Scores("tiny", tiny.record, tiny.tasks, deep)] * count, STAND_INS)
            assert figure is not None
            assert overlapping_texts(figure) == []
        assert layer_guide([Scores("tiny", tiny.record, tiny.tasks, flat)], STAND_INS) is None


def test_the_layer_guide_frames_what_was_chosen(material: ReportData) -> None:
    tiny = material.scores[0]
    with look():
        axes = layer_guide(material.scores, STAND_INS).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3", "4", "sum"]
    framed = [round(patch.get_x() + 0.45) for patch in axes.patches]
    chosen = [tiny.tasks[task]["input"] for task in STAND_INS]
    assert framed == [5 if heard == "weighted" else heard for heard in chosen]
    assert "weighted" in chosen and 0 in chosen
    shown = {text.get_text() for text in axes.texts}
    assert f"{dict(tiny.layers['demo/gs_key'])['weighted']:.3f}" in shown


def test_separation_has_an_axis_of_its_own_and_r2_may_be_negative(material: ReportData) -> None:
    with look():
        shares, decibels = scores_against_floors(material.scores, STAND_INS).axes
    assert shares.get_xlim()[0] < -0.28  # random weights' R²
    assert [text.get_text() for text in decibels.get_yticklabels()] == ["demo/musdb18\nSDR, mean"]
    assert "dB" in decibels.get_xlabel() and "dB" not in shares.get_xlabel()
    assert "−0.280" in {text.get_text() for text in shares.texts}


def test_an_r2_far_below_zero_does_not_squeeze_the_others(material: ReportData) -> None:
    bad = entry("demo/emo", {"r2_brightness": -40.0, "r2_density": -2.0})
    scores = [Scores(item.run, item.record, item.tasks | {"demo/emo": bad}, item.layers) for item in material.scores]
    with look():
        figure = scores_against_floors(scores, ["demo/gs_key", "demo/emo"])
        assert overlapping_texts(figure) == []
    assert figure.axes[0].get_xlim()[0] == -0.5
    assert "−21.000" in {text.get_text() for text in figure.axes[0].texts}


def test_robustness_draws_every_point_and_only_what_is_there(material: ReportData) -> None:
    with look():
        figure = robustness_curves(material.scores, STAND_INS)
        assert robustness_curves(material.scores, ["demo/emo"]) is None
    tiny = material.scores[0].robustness
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    asked = [(task, kind) for task in DEFORMED for kind in DEFORMATIONS if kind in tiny[task]]
    assert len(drawn) == len(asked) == 4 + 5 + 4
    for axes, (task, kind) in zip(drawn, asked, strict=True):
        assert axes.lines[0].get_ydata().tolist() == [point["value"] for point in tiny[task][kind]]
        labels = [text.get_text() for text in axes.get_xticklabels()]
        # Levels stand below the last panel of each deformation; pitch is not asked of the last task.
        is_last = (task, kind) in {("demo/nsynth_pitch", kind), ("demo/gtzan_genre", "pitch")}
        assert labels == (
            [point["label"].split(" ")[0] for point in tiny[task][kind]] if is_last else [""] * len(labels)
        )


def test_many_runs_and_deformations_do_not_overlap(tmp_path: Path) -> None:
    layout = write_line(tmp_path, runs=("tiny", "95m"))
    scores = [read_scores(layout, run) for run in ("tiny", "95m", "random-weights", "mel-statistics")]
    for item in scores:
        item.robustness["demo/gs_key"] |= {"reverb": item.robustness["demo/gs_key"]["gain"]}
        for task in ("demo/vocalset_technique", "demo/nsynth_instrument", "demo/gtzan_rhythm"):
            item.robustness[task] = {"noise": item.robustness["demo/gs_key"]["noise"]}
    with look():
        assert overlapping_texts(robustness_curves(scores, STAND_INS)) == []
        assert overlapping_texts(layer_guide(scores, STAND_INS)) == []
        assert overlapping_texts(scores_against_floors(scores, STAND_INS)) == []


def test_png_bytes_do_not_depend_on_the_machine(
    material: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    with look():
        save_png(usage(material.labels[0].usage), tmp_path / "a.png")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    with look():
        save_png(usage(material.labels[0].usage), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
