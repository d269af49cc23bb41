"""Starting from a checkpoint: imported or our own, and only from the one that the parameters mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mert_core.config import Config, PretrainConfig, WarmStart
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.model.checkpoint import fingerprint
from mert_core.model.convert import import_checkpoint
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.tracking import NullTracker
from mert_core.training import stage
from mert_core.training.run import build_objective
from mert_core.training.stage import start_folder, start_input
from mert_core.training.targets import TargetSpec
from tests.training.music import objective_of, params
from tests.training.test_stage import layout, small  # noqa: F401  (fixtures)


def heads(seed: int) -> Heads:
    return Heads(128, {"tones": (2, 16)}, {"cqt": 336}, 64, 0.1, seed=seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    MertModel.from_preset("mert-tiny", seed=77).save_pretrained(tmp_path / "from")
    heads(78).save(tmp_path / "from")
    return tmp_path / "from"


def starting(folder: Path, heads: str = "stored", **changes: Any) -> PretrainConfig:
    return params(start={"folder": str(folder), "sha256": fingerprint(folder), "heads": heads}, **changes)


def test_encoder_and_heads_are_those_of_the_checkpoint(folder: Path) -> None:
    objective = objective_of(starting(folder), 0, folder)
    assert torch.equal(objective.encoder.masked_spec_embed, MertModel.from_pretrained(folder).masked_spec_embed)
    stored = heads(78)
    assert torch.equal(objective.heads.codes["tones"].codebook_embeddings, stored.codes["tones"].codebook_embeddings)
    fresh = objective_of(starting(folder, "fresh"), 0, folder)
    assert torch.equal(fresh.encoder.masked_spec_embed, objective.encoder.masked_spec_embed)
    assert torch.equal(fresh.heads.spectra["cqt"].weight, objective_of(params()).heads.spectra["cqt"].weight)


def test_heads_of_another_teacher_or_none_are_errors_that_say_the_way_out(folder: Path) -> None:
    with pytest.raises(MertError, match=r"misshapen: codes.tones.codebook_embeddings(.|\n)*heads: fresh"):
        build_objective(starting(folder), [TargetSpec("tones", Codes(2, 32), "stored", 1.0)], 0, folder)
    with pytest.raises(MertError, match=r"missing: codes\.tones\.log_scales"):
        objective_of(starting(folder, learn_temperature=True), 0, folder)
    (folder / "heads.safetensors").unlink()
    with pytest.raises(MertError, match="heads: fresh"):
        objective_of(starting(folder), 0, folder)


def test_another_network_is_an_error_that_names_the_difference(folder: Path) -> None:
    with pytest.raises(MertError, match="do_stable_layer_norm is True, the run's False"):
        objective_of(starting(folder, model={"preset": "mert-tiny", "do_stable_layer_norm": False}), 0, folder)


def test_the_hash_decides(folder: Path) -> None:
    start = starting(folder).start
    assert start_input(start, Path("/")) == {"start": fingerprint(folder)}
    assert start_input(None, folder) == {} and start_folder(None, folder) is None
    heads(79).save(folder)
    with pytest.raises(MertError, match=r"pretrain\.start\.sha256"):
        start_input(start, Path("/"))
    missing = WarmStart(folder="nowhere", sha256="0" * 64, heads="fresh")
    with pytest.raises(MertError, match="mert import"):
        start_input(missing, folder)


def test_a_run_goes_on_from_an_imported_run(small: Config, layout: Layout) -> None:  # noqa: F811
    first = stage.run(small, layout, NullTracker(), "tiny")
    done = import_checkpoint(layout.model("tiny"), layout.root / "models" / "taken")
    start = {"folder": "models/taken", "sha256": done.sha256, "heads": "stored"}
    tree = small.model_dump(mode="json")
    tree["runs"] = {"tiny": {}, "more": {"start": start, "max_steps": 1, "schedule_steps": 100}}
    again = Config.model_validate(tree)
    second = stage.run(again, layout, NullTracker(), "more")
    assert second.inputs == {**first.inputs, "start": done.sha256}
    assert second.params["pretrain"]["start"] == start
    before = MertModel.from_pretrained(layout.model("tiny")).encoder.layer_norm.weight
    after = MertModel.from_pretrained(layout.model("more")).encoder.layer_norm.weight
    assert 0 < (after - before).abs().max() < 0.01  # one small step away
    assert second.facts["valid"]["loss"] < 1.1 * first.facts["valid"]["loss"]
