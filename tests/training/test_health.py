"""Every fault that the health policy knows is injected into a real run; disks, shards and silence fail for real."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mert_core.config import PretrainConfig
from mert_core.errors import MertError
from mert_core.training import health as health_module
from mert_core.training.batches import CropSource
from mert_core.training.callbacks import SilentObserver
from mert_core.training.checkpoint import Progress, StateStore
from mert_core.training.loss import Objective
from mert_core.training.run import work
from mert_core.training.trainer import Trainer
from mert_core.training.worker import Worker
from tests.training.music import Tones, TonesMusic, health, job, objective_of, params, target_set

Hurt = Callable[[Objective], None]


class Witness(SilentObserver):
    """Remembers notes and figures; hurts the model once, after a step."""

    def __init__(self, at: int = 0, hurt: Callable[[], None] | None = None) -> None:
        self.notes: list[str] = []
        self.figures: dict[str, list[tuple[int, float]]] = {}
        self._at, self._hurt = at, hurt

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        if step == self._at and self._hurt is not None:
            self._hurt()
            self._hurt = None

    def metrics(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.figures.setdefault(name, []).append((step, value))

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(
    states: Path | None,
    run_params: PretrainConfig,
    *,
    gradient: Callable[[int, Tensor], Tensor] | None = None,
    model: Hurt | None = None,
    at: int = 0,
    music: TonesMusic | None = None,
) -> tuple[Progress, Witness]:
    """Train; ``gradient`` changes one gradient of each backward pass, ``model`` the weights after step ``at``."""
    torch.set_num_threads(1)
    objective = objective_of(run_params, 7)
    cut = music or Tones().open().music, target_set(run_params), run_params
    sources = [CropSource(*cut, split, 7, corrupt=split == "train") for split in ("train", "valid")]
    if gradient is not None:
        passes = iter(range(1, 1000))
        objective.heads.spectra["cqt"].weight.register_hook(lambda grad: gradient(next(passes), grad))
    witness = Witness(at, (lambda: model(objective)) if model is not None else None)
    store = StateStore(states, 2) if states is not None else None
    trainer = Trainer(run_params, objective, *sources, seed=7, worker=Worker(), states=store, observer=witness)
    progress, _ = trainer.train()
    assert all(bool(parameter.isfinite().all()) for parameter in objective.parameters())
    return progress, witness


def fifth(factor: float) -> Callable[[int, Tensor], Tensor]:
    return lambda number, grad: grad * factor if number == 5 else grad


def test_a_nan_rolls_back_to_the_last_state_at_a_lower_rate_past_the_bad_crops(tmp_path: Path) -> None:
    progress, witness = run(tmp_path, params(log_every=1), gradient=fifth(float("nan")))
    assert progress.step == 6
    assert progress.position == (5 + 2) * 4  # updates 1 … 5, then 5 and 6 again with fresh crops
    assert (progress.health.interventions, progress.health.rate_factor) == (1, 0.5)
    assert "update 5: the loss is" in witness.notes[0]
    assert "gradient norm nan: rolling back" in witness.notes[0]
    assert witness.notes[1] == "back to step 4, learning rate × 0.5"
    rates = dict(witness.figures["train/learning_rate"])
    assert rates[5] == pytest.approx(0.5 * 1e-3 * 95 / 98)
    assert witness.figures["health/fault/nonfinite"] == [(5, 1.0)]
    assert witness.figures["health/interventions"] == [(5, 1.0)]
    assert [row[0] for row in progress.curve if row[1:3] == ("train", "loss")] == [1, 2, 3, 4, 5, 6]


def test_a_nan_skips_the_update() -> None:
    progress, witness = run(None, params(health=health(nonfinite="skip")), gradient=fifth(float("inf")))
    assert (progress.step, progress.position, progress.health.interventions) == (6, 24, 1)
    assert progress.health.rate_factor == 1.0
    assert "this update is skipped" in witness.notes[0]


def test_interventions_are_bounded_and_the_state_intact(tmp_path: Path) -> None:
    always = health(max_interventions=2)
    with pytest.raises(MertError, match=r"after 2 interventions.*resume state of step 2 is intact") as raised:
        run(tmp_path, params(health=always), gradient=lambda n, grad: grad * float("nan") if n > 3 else grad)
    assert "pretrain.learning_rate" in str(raised.value)
    assert StateStore(tmp_path, 2).newest() == (2, [])
    with pytest.raises(MertError, match="No resume state had been written"):
        run(None, params(), gradient=fifth(float("nan")))


def test_a_gradient_spike_is_told_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "LEAST_NORMS", 3)
    _, witness = run(None, params(), gradient=fifth(1e5))
    (note,) = witness.notes
    assert "update 5: the gradient norm is" in note
    assert note.endswith("training goes on")
    skipping = health(gradient_spike={"above": 10.0, "action": "skip"})
    progress, witness = run(None, params(health=skipping), gradient=fifth(1e5))
    assert progress.health.interventions == 1
    assert len(progress.health.norms) == 5


@torch.no_grad()
def _explode(objective: Objective) -> None:
    objective.heads.spectra["cqt"].bias.add_(1e4)


@torch.no_grad()
def _say_one_code(objective: Objective) -> None:
    heads = objective.heads.codes["tones"]
    heads.final_proj.weight.zero_()
    heads.final_proj.bias.copy_(100 * F.normalize(heads.codebook_embeddings[:, 0], dim=-1).flatten())


@torch.no_grad()
def _embed_alike(objective: Objective) -> None:
    objective.encoder.encoder.layer_norm.weight.zero_()
    objective.encoder.encoder.layer_norm.bias.fill_(1.0)


@pytest.mark.parametrize(
    ("fault", "hurt", "bounds", "said"),
    [
        ("explosion", _explode, {"explosion": {"above": 5.0, "action": "rollback"}}, "times the first one"),
        ("perplexity", _say_one_code, {"perplexity": {"below": 0.5, "action": "rollback"}}, "predictions' perplexity"),
        ("dead_codes", _say_one_code, {"dead_codes": {"above": 0.5, "action": "rollback"}}, "has given up"),
        ("effective_rank", _embed_alike, {"effective_rank": {"below": 2.0, "action": "rollback"}}, "effective rank"),
    ],
)
def test_a_collapse_is_seen_and_rolled_back(
    tmp_path: Path, fault: str, hurt: Hurt, bounds: dict[str, object], said: str
) -> None:
    progress, witness = run(tmp_path, params(health=health(**bounds)), model=hurt, at=5)
    assert (progress.step, progress.health.interventions, progress.health.rate_factor) == (6, 1, 0.5)
    assert said in witness.notes[0]
    assert "back to step 4" in witness.notes[1]
    assert witness.figures[f"health/fault/{fault}"] == [(6, 1.0)]
    (step, rank), (_, share) = (
        witness.figures[f"health/{name}"][-1] for name in ("effective_rank", "perplexity_share")
    )
    assert step == 6 and rank > 2 and share > 0.5


def test_a_standing_fault_is_told_once_and_its_states_are_not_rolled_back_to(tmp_path: Path) -> None:
    bounds = health(effective_rank={"below": 2.0, "action": "warn"})
    run_params = params(max_steps=9, health=bounds, learning_rate=1e-6)
    progress, witness = run(
        tmp_path, run_params, model=_embed_alike, at=3, gradient=lambda n, grad: grad * float("nan") if n == 9 else grad
    )
    assert sum("effective rank" in note for note in witness.notes) == 1
    assert "back to step 2, learning rate × 0.5" in witness.notes
    assert progress.step == 9


def test_silence_is_told_and_training_goes_on() -> None:
    music = Tones().open().music
    music.pcm = np.zeros_like(music.pcm)
    progress, witness = run(None, params(), music=music)
    assert progress.step == 6
    assert witness.notes[0] == "update 1: every clip of the batch is silent: training goes on"
    assert len([note for note in witness.notes if "silent" in note]) == 1


def test_music_that_cannot_be_read_stops_the_run_and_names_crops_and_state(tmp_path: Path) -> None:
    class Failing(TonesMusic):
        reads = 0

        def crops(self, rows: np.ndarray, offset_samples: np.ndarray, length: int, out: np.ndarray) -> np.ndarray:
            self.reads += 1
            if self.reads == 5:
                raise OSError(errno.EIO, "Input/output error")
            return super().crops(rows, offset_samples, length, out)

    expected = r"after step 4: .*crops 16 … 19 cannot be read.*Input/output error.*state of step 4 is intact"
    with pytest.raises(MertError, match=expected):
        run(tmp_path, params(validate_every=100), music=Failing(2.0))


def test_a_full_disk_costs_states_not_the_training(tmp_path: Path) -> None:
    """The limit on file sizes makes write() fail as a full disk does, in torch's and in safetensors' writers."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Witness):
        def metrics(self, values: dict[str, float], step: int) -> None:
            super().metrics(values, step)
            if step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))

    states, out = tmp_path / "states", tmp_path / "out"
    out.mkdir()
    filling = job(params(log_every=1), out, states)
    witness = Filling()
    try:
        with pytest.raises(MertError, match=r"cannot be written to .*it goes on from the resume state of step 2"):
            work(filling, Worker(), witness)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the resume state of step 4 could not be written" in witness.notes[0]
    assert "The resume state of step 2 is intact" in witness.notes[0]
    assert max(step for step, _ in witness.figures["train/loss"]) == 6
    assert not list(states.glob(".step-*"))
    witness = Witness()
    assert work(filling, Worker(), witness)["steps"] == 6
    assert witness.notes == ["going on from step 2"]
