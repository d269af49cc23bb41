from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mert_core.config import Config, load_config
from mert_core.errors import MertError


def _write(folder: Path, tree: dict) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture
def tree(config: Config) -> dict:
    return config.model_dump(mode="json", exclude_unset=True)


def test_committed_parameters_are_valid_and_runs_differ_from_the_base(config: Config) -> None:
    assert config.run("330m").preset == "mert-330m"
    assert config.run("330m").temperature == config.pretrain.temperature
    assert config.run("tiny").max_steps == config.pretrain.max_steps


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        (None, "sead", 1, "sead"),
        (None, "seed", -1, "seed"),
        ("pretrain", "mask_probability", 1.5, "pretrain.mask_probability"),
        ("pretrain", "presett", "mert-95m", "pretrain.presett"),
        ("pretrain", "preset", "mert-900m", "pretrain.preset"),
        ("probe", "tasks", [], "probe.tasks"),
        ("corpus", "source", "folder", "corpus.folder names none"),
        ("sweep", "run", "huge", "sweep.run is 'huge'"),
        ("pieces", "train", 0.95, "must leave pieces for the test split"),
    ],
)
def test_a_bad_value_or_key_is_named(
    tmp_path: Path, tree: dict, section: str | None, key: str, value: object, named: str
) -> None:
    (tree[section] if section else tree)[key] = value
    with pytest.raises(MertError, match=named.replace(".", r"\.")):
        load_config(_write(tmp_path, tree))


def test_a_missing_key_is_named(tmp_path: Path, tree: dict) -> None:
    del tree["pretrain"]["temperature"]
    with pytest.raises(MertError, match=r"pretrain\.temperature"):
        load_config(_write(tmp_path, tree))


def test_a_run_that_is_impossible_as_a_whole_is_refused_at_once(tmp_path: Path, tree: dict) -> None:
    tree["runs"]["tiny"]["warmup_steps"] = tree["pretrain"]["schedule_steps"]
    with pytest.raises(MertError, match="warmup_steps"):
        load_config(_write(tmp_path, tree))


def test_overrides(repository: Path) -> None:
    path = repository / "params.yaml"
    assert load_config(path, ["runs.330m.max_steps=2"]).run("330m").max_steps == 2
    assert load_config(path, ["probe.rates=[0.1]"]).probe.rates == [0.1]
    for wrong in ("pretrain.max_stepss=2", "nowhere.key=1", "runs.330m.max_stepss=2", "seed"):
        with pytest.raises(MertError):
            load_config(path, [wrong])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="cannot read"):
        load_config(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(MertError, match="not YAML"):
        load_config(tmp_path / "params.yaml")
