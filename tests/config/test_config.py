from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from mert_core.cli import main
from mert_core.config import Config, describe_config, load_config
from mert_core.errors import MertError


def written(folder: Path, tree: dict | str) -> Path:
    path = folder / "params.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def loaded(folder: Path, tree: dict | str, *overrides: str) -> Config:
    return load_config(written(folder, tree), list(overrides))


def test_the_committed_runs_are_the_published_ones_and_the_demos(config: Config) -> None:
    small, large = config.run("95m"), config.run("330m")
    assert (small.global_batch_size, large.global_batch_size) == (1024, 3584)
    assert (small.learning_rate, large.learning_rate) == (5e-4, 1.5e-3) and large.schedule_steps == 400_000
    assert config.run("tiny").max_steps == config.pretrain["max_steps"] == config.run("tiny").decay_steps
    assert config.pipeline_runs == config.shown_runs == ["tiny"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sead: 1", "sead: unknown key"),
        ("seed: -1", "seed"),
        ("pretrain: {mask_probability: 1.5}", "pretrain has 1 error(s):\n  mask_probability"),
        ("pretrain: {presett: mert-95m}", "pretrain has 1 error(s):\n  presett: unknown key"),
        ("runs: {tiny: {max_stepss: 3}}", "runs.tiny has 1 error(s):\n  max_stepss: unknown key"),
        ("runs: {tiny: {warmup_steps: 9, schedule_steps: 9}}", "warmup_steps (9) must be below schedule_steps (9)"),
        ("runs: {tiny: {base: huge}}", "no run is named 'huge'"),
        ("runs: {tiny: {base: b}, b: {base: tiny}}", "round in a circle: tiny → b → tiny"),
        ("runs: {../../../X: {}}", "runs.../../../X"),
        ("runs: {tiny: {}, Tiny: {}}", "upper and lower case alone"),
        ("runs: {tiny: {}, random-weights: {}}", "random-weights, which means something else"),
        ("runs: {tiny: {}}\nheavy: [huge]", "heavy names huge"),
        ("runs: {tiny: {}}\nprobe: {tasks: []}", "probe.tasks"),
        ("corpus: {source: folder}", "corpus.folder names none"),
        ("sweep: {run: huge}\nruns: {tiny: {}}", "sweep.run names huge"),
        ("pieces: {train: 0.95}", "must leave pieces for the test split"),
        ("a: [", "is not YAML"),
        ("- a", "holds list; expected sections"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(MertError) as raised:
        loaded(tmp_path, text)
    assert named in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="cannot read"):
        load_config(tmp_path / "params.yaml")


def test_a_run_is_a_base_and_a_few_changed_lines(tmp_path: Path) -> None:
    tree = {
        "seed": 3,
        "pretrain": {"model": {"preset": "mert-tiny", "hidden_size": 64}, "health": {"every": 7}, "warmup_steps": 1},
        "runs": {
            "tiny": None,
            "wide": {"base": "tiny", "model": {"hidden_size": 96}, "health": {"silence": "stop"}, "seed": 4},
            "other": {"base": "wide", "model": {"preset": "mert-95m"}},
            "paper": {"base": "published"},
        },
    }
    config = loaded(tmp_path, tree)
    tiny, wide, other, paper = (config.run(name) for name in ("tiny", "wide", "other", "paper"))
    assert (tiny.seed, wide.seed, other.seed) == (3, 4, 4)
    assert wide.model.overrides == {"hidden_size": 96} and wide.model.preset == "mert-tiny"
    assert (wide.health.every, wide.health.silence) == (7, "stop")
    assert other.model.preset == "mert-95m" and other.model.overrides == {}, "another preset begins anew"
    assert (paper.warmup_steps, paper.health.every, paper.global_batch_size) == (32_000, 200, 1024)


def test_the_command_line_changes_single_values(tmp_path: Path) -> None:
    text = "runs: {tiny: }\npretrain: {warmup_steps: 1}"
    assert loaded(tmp_path, text, "runs.tiny.max_steps=2").run("tiny").max_steps == 2
    assert loaded(tmp_path, text, "probe.rates=[0.1]", "corpus.scores.minutes=3").corpus.scores.minutes == 3
    for wrong in ("pretrain.max_stepss=2", "nowhere.key=1", "runs.tiny.max_stepss=2", "seed", "seed.x=1"):
        with pytest.raises(MertError):
            loaded(tmp_path, text, wrong)


def test_an_inner_section_is_changed_key_by_key(tmp_path: Path) -> None:
    tree = "probe_set: {mixes: {train: 3}}\nruns: {tiny: {warmup_steps: 1, health: {explosion: {above: 2.0}}}}"
    config = loaded(tmp_path, tree, "probe.demo.separation.hidden=8")
    assert config.probe_set.mixes.model_dump() == {"train": 3, "valid": 300, "test": 1200}
    explosion = config.run("tiny").health.explosion
    assert (explosion.above, explosion.action) == (2.0, "rollback")
    assert (config.probe.demo.separation.hidden, config.probe.demo.separation.max_epochs) == (8, 20)


def test_the_resolved_tree_says_where_each_value_comes_from(tmp_path: Path) -> None:
    path = written(
        tmp_path, "seed: 2\npretrain: {warmup_steps: 1, weights: {unmasked: 1.0}}\nruns: {tiny: {clip_norm: 2.0}}"
    )
    run = describe_config(path, ["runs.tiny.max_steps=9"], "tiny")
    sources = {line.split(":")[0].strip(): line.split("#")[1].strip() for line in run.splitlines() if "#" in line}
    assert sources["max_steps"] == "command line" and sources["clip_norm"] == "runs.tiny"
    assert sources["warmup_steps"] == sources["unmasked"] == "pretrain"
    assert sources["feature_penalty"] == "default" and sources["seed"] == "seed of all stages"
    tree = yaml.safe_load(run)
    assert tree == load_config(path, ["runs.tiny.max_steps=9"]).run("tiny").model_dump(mode="json")
    whole = describe_config(path, [])
    assert yaml.safe_load(whole) == load_config(path).model_dump(mode="json")
    assert "threads: 2" in whole


def test_dvc_can_read_every_default(repository: Path) -> None:
    """DVC reads defaults out of the classes' bodies: literals, or sections that are made without arguments."""
    for path in (repository / "mert_core" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for field in node.body:
                if not isinstance(field, ast.AnnAssign) or field.value is None:
                    continue
                made = isinstance(field.value, ast.Call) and not field.value.args and not field.value.keywords
                where = f"{path.name}: {node.name}.{ast.unparse(field.target)}"
                assert made or not isinstance(ast.literal_eval(field.value), tuple), (
                    f"{where}: a tuple never equals itself"
                )


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("{preset: mert-900m}", "runs.tiny.model: no preset is named 'mert-900m'"),
        ("{preset: mert-tiny, hidden_sise: 4}", "runs.tiny.model: MertConfig has no hidden_sise"),
        ("{preset: mert-tiny, hidden_size: 130}", "hidden_size 130 is not a multiple of num_attention_heads 4"),
        ("{preset: mert-tiny, layerdrop: often}", "layerdrop='often' (expected a number)"),
    ],
)
def test_a_model_that_cannot_be_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, named: str
) -> None:
    written(tmp_path, f"runs: {{tiny: {{model: {model}}}}}")
    assert main(["config", "--workdir", str(tmp_path)]) == 2
    assert named in capsys.readouterr().err
