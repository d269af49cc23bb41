from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from mert_core.config import Config, LossTerm, load_config
from mert_core.errors import MertError
from mert_core.experiments.sweep import (
    RESULT_NAME,
    Sweep,
    Trial,
    _conclude,
    apply_winner,
    describe,
    read_sweep,
    sweeps_folder,
    trial_params,
    with_weights,
)
from mert_core.files import write_json
from mert_core.paths import Layout
from mert_core.tracking import NullTracker


@pytest.fixture
def layout(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("MERT_HOME", str(tmp_path / ".mert"))
    (tmp_path / "params.yaml").write_text((repository / "params.yaml").read_text())
    return Layout.at(tmp_path)


def keep(layout: Layout, sweep_id: str, rvqvae: float, cqt: float) -> Sweep:
    winner = Trial("t1", {"rvqvae": rvqvae, "cqt": cqt}, 300, 0.5)
    sweep = Sweep(sweep_id, "tiny", "key", 300, winner, [winner])
    write_json(sweeps_folder(layout) / sweep_id / RESULT_NAME, asdict(sweep))
    return sweep


ENTRY = "{teacher: rvqvae, weight: 1.0, targets: stored}"


def weights_of(config: Config) -> dict[str, float]:
    return {term.teacher: term.weight for term in config.run("tiny").teachers}


def test_apply_changes_two_weights_and_nothing_else(layout: Layout, config: Config) -> None:
    path = layout.root / "params.yaml"
    before = path.read_text()
    keep(layout, "20260101-000000-aaaaaa", 9.0, 9.0)
    keep(layout, "20260102-000000-aaaaaa", 0.512349, 3.0)
    said = apply_winner(layout, path, "latest")
    assert "0.5123" in said and "20260102" in said

    old, new = before.splitlines(), path.read_text().splitlines()
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1  # comments, numbers and nulls of all others are what they were
    assert changed[0][1].strip().startswith("tiny:")

    applied = load_config(path)
    assert weights_of(applied) == weights_of(config) | {"rvqvae": 0.5123, "cqt": 3.0}
    assert [term.targets for term in applied.run("tiny").teachers] == ["stored", "crop", "crop", "crop"]
    assert applied.run("tiny").weights == config.run("tiny").weights
    assert applied.run("95m") == config.run("95m")

    apply_winner(layout, path, "20260101-000000-aaaaaa")  # again: replaced, not added
    assert weights_of(load_config(path))["rvqvae"] == 9.0


@pytest.mark.parametrize(
    "run",
    [
        "tiny: {}",
        "tiny: {max_steps: 9}  # why",
        f"tiny: {{teachers: [{ENTRY}, {{weight: 2.0, teacher: cqt, targets: crop}}], max_steps: 5}}",
        "tiny:\n    max_steps: 5  # why\n    clip_norm: 1.0",
        "tiny: {teachers: [{teacher: rvqvae, targets: stored}, {targets: crop, teacher: cqt}]}",
        "tiny:\n    teachers:\n    - targets: stored  # a\n      teacher: rvqvae\n    - {targets: crop, teacher: cqt}",
        f"tiny:\n    teachers:\n    - {ENTRY}  # a\n    - teacher: cqt\n      weight: 2  # b\n      targets: crop",
    ],
)
def test_every_way_to_write_a_run_is_understood(run: str) -> None:
    text = f"seed: null\nruns:\n  {run}\n  other: {{model: {{preset: mert-95m}}}}  # end\n"
    terms = [
        LossTerm(teacher="rvqvae", targets="stored", weight=0.5),
        LossTerm(teacher="cqt", targets="crop", weight=4.0),
    ]
    changed = with_weights(text, "tiny", terms)
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    assert after["runs"]["tiny"] == before["runs"]["tiny"] | {"teachers": [term.model_dump() for term in terms]}
    assert after["runs"]["other"] == before["runs"]["other"]
    assert changed.count("#") == text.count("#")


def test_apply_leaves_the_file_alone_when_the_result_would_be_wrong(layout: Layout) -> None:
    path = layout.root / "params.yaml"
    keep(layout, "20260101-000000-aaaaaa", -1.0, 1.0)
    before = path.read_bytes()
    with pytest.raises(MertError, match=r"teachers\.0\.weight"):
        apply_winner(layout, path, "latest")
    assert path.read_bytes() == before
    assert sorted(item.name for item in layout.root.iterdir()) == [".mert", "params.yaml"]


def test_an_unknown_sweep_is_named(layout: Layout) -> None:
    with pytest.raises(MertError, match="no finished sweep in"):
        read_sweep(layout, "latest")
    keep(layout, "20260101-000000-aaaaaa", 1.0, 1.0)
    with pytest.raises(MertError, match="20260101-000000-aaaaaa"):
        read_sweep(layout, "other")


def test_winner_went_furthest(layout: Layout, config: Config) -> None:
    steps = [("a", 100, 0.9, None), ("b", 300, 0.4, None), ("c", 300, 0.6, None), ("d", 300, 0.99, "it broke")]
    trials = [Trial(name, {"rvqvae": 1.0, "cqt": 2.0}, step, score, error) for name, step, score, error in steps]
    trials += [Trial("e", {"rvqvae": 5.0, "cqt": 2.0}, 0, None, "it broke, too")]
    sweep = _conclude(config, layout, NullTracker(), "20260101-000000-aaaaaa", trials)
    assert sweep.winner.id == "c"
    assert read_sweep(layout, "latest") == sweep
    assert "winner" in describe(sweep).splitlines()[2]
    with pytest.raises(MertError, match="it broke, too"):
        _conclude(config, layout, NullTracker(), "x", trials[-1:])


def test_trial_is_the_beginning_of_its_run(config: Config) -> None:
    params, run = trial_params(config, {"rvqvae": 0.3, "cqt": 4.0}), config.run(config.sweep.run)
    expected = {term.teacher: term.weight for term in run.teachers} | {"rvqvae": 0.3, "cqt": 4.0}
    assert {term.teacher: term.weight for term in params.teachers} == expected
    assert params.weights == run.weights
    assert (params.workers, params.max_steps) == (0, config.sweep.max_steps)
    assert params.validate_every == config.sweep.grace_steps
    assert (params.learning_rate, params.decay_steps) == (run.learning_rate, run.decay_steps)
