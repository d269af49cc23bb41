from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mert_core.errors import MertError
from mert_core.probing import train as train_module
from mert_core.probing.features import InMemory, mean_over_tracks, moments
from mert_core.probing.probe_bank import (
    FEW_CLASSES,
    WEIGHTED,
    ProbeLoss,
    ProbeSettings,
    ProbeSpec,
    Shape,
    blocks_of,
    dropout_factors,
)
from mert_core.probing.train import Examples, TrainedProbes, train_probes
from tests.probing.material import CLASSES, RECIPE, SEEDS, examples, planted, scoring
from tests.probing.plain import train_plain

SINGLE = ProbeLoss("single", CLASSES)
RATES = [2e-3, 2e-2]
(_FEATURES, _TRUTH), (_HELD_OUT, _ANSWERS) = (planted(items, seed, 3, 1) for items, seed in ((100, 0), (60, 1)))
TRAIN, VALID = examples(_FEATURES * 0.02, _TRUTH), examples(_HELD_OUT * 0.02, _ANSWERS)  # faint, in state 1 of 3
SCORE = scoring("accuracy", VALID.truth)


def grid(inputs, rates=RATES, seeds=(0, 1)) -> tuple[ProbeSpec, ...]:
    return tuple(ProbeSpec(number, rate, seed) for number in inputs for rate in rates for seed in seeds)


def fit(probes, train=TRAIN, valid=VALID, **changes) -> TrainedProbes:
    return train_probes(probes, train, valid, SINGLE, replace(RECIPE, **changes), SCORE)


def task(kind: str, items: int, seed: int):
    """Rows of tracks of several chunks, (states, rows, width), and truth of tracks."""
    generator = np.random.default_rng(seed)
    tracks = np.sort(np.concatenate([np.arange(items), generator.integers(0, items, items)]))
    features = torch.from_numpy(generator.normal(size=(3, len(tracks), 12)).astype(np.float32)) * 3 + 1
    hidden = np.stack([features[1:, tracks == track].mean(dim=(0, 1)).numpy() for track in range(items)])
    if kind == "single":
        return Examples.of_tracks(InMemory(features), tracks, hidden[:, :CLASSES].argmax(1))
    truth = hidden[:, :CLASSES] > 1 if kind == "multi" else hidden[:, :2] * [5, 0.1] + [100, -3]
    return Examples.of_tracks(InMemory(features), tracks, truth)


@pytest.mark.parametrize(
    ("kind", "outputs", "metric", "hidden"),
    [
        ("single", CLASSES, "accuracy", 32),
        ("multi", CLASSES, "ap", 32),
        ("regression", 2, "r2", 0),
        ("single", CLASSES, "accuracy", 0),
    ],
)
def test_a_bank_is_its_probes_trained_one_by_one(kind, outputs, metric, hidden, monkeypatch) -> None:
    monkeypatch.setattr(train_module, "CACHE_FLOATS", 1300)  # some probes by themselves, some together
    settings = replace(RECIPE, max_epochs=9, patience=3, hidden=hidden)
    train, valid = task(kind, 50, 0), task(kind, 40, 1)
    objective, score = ProbeLoss(kind, outputs), scoring(metric, valid.track_truth)
    probes = grid((WEIGHTED, 0, 1))
    trained = train_probes(probes, train, valid, objective, settings, score)
    assert len(set(trained.epochs.tolist())) > 1, "all stopped together: the test no longer sees probes leave the bank"

    found = moments(train.features)
    states, held_out = (found.standardize(split.features.tensor.clone()) for split in (train, valid))
    targets = torch.from_numpy(train.truth)
    shift, scale = 0.0, 1.0
    if kind != "single":
        targets = targets.float()
    if kind == "regression":
        scale, shift = (part.numpy() for part in torch.std_mean(targets, dim=0, correction=0))
        targets = (targets - torch.from_numpy(shift)) / torch.from_numpy(scale)
    answers = trained.predict(valid.features)
    slowed = 0
    for position, probe in enumerate(probes):
        plain, best, epoch, rates = train_plain(
            probe,
            (states, targets),
            held_out,
            objective,
            settings,
            lambda out: score(out * scale + shift),
            torch.from_numpy(valid.tracks),
        )
        assert trained.validation[position] == pytest.approx(best, abs=1e-5), probe
        assert trained.epochs[position] == epoch
        slowed += len(set(rates)) > 1
        expected = plain(held_out).detach().numpy() * scale + shift
        np.testing.assert_allclose(answers[position], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        if probe.input == WEIGHTED:
            mixture = torch.softmax(trained.weights[position, -trained.shape.mixed :], 0)
            torch.testing.assert_close(mixture, torch.softmax(plain.mixture.detach(), 0), rtol=0, atol=1e-5)
    assert slowed, "no rate fell: the test no longer sees a plateau"


def test_the_weights_are_those_of_the_best_epoch() -> None:
    trained = fit(grid(range(3), [2e-2], [0]), patience=3)
    assert (trained.epochs < RECIPE.max_epochs).any()
    answers = trained.predict(VALID.features)
    assert SCORE(answers).tolist() == trained.validation.tolist()
    assert np.array_equal(trained.only([2, 0]).predict(VALID.features), answers[[2, 0]])


def test_bits_follow_from_the_seed_and_not_from_the_number_of_threads() -> None:
    probes = grid((WEIGHTED, 0, 1, 2), seeds=SEEDS)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fit(probes))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].weights, found[1].weights)
    other = fit((replace(probes[-1], seed=7),))
    assert not torch.equal(other.weights[0], found[0].weights[-1, : other.shape.parameters])


def test_a_block_of_many_inputs_trains_the_same_probes(monkeypatch) -> None:
    probes = grid((2, WEIGHTED, 0, 1))
    expected = fit(probes, patience=3)
    assert len(list(blocks_of(probes, None, expected.shape))) == 4
    monkeypatch.setattr(train_module, "CACHE_FLOATS", None)  # as on a GPU
    found = fit(probes, patience=3)
    assert np.array_equal(found.epochs, expected.epochs)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "width"), [("single", 3), ("single", FEW_CLASSES + 1), ("multi", 3), ("regression", 3)]
)
def test_the_gradient_written_out_is_autograds(kind, width) -> None:
    objective, generator = ProbeLoss(kind, width), np.random.default_rng(0)
    truth = generator.integers(0, width, 5) if kind == "single" else generator.integers(0, 2, (5, width))
    outputs = torch.from_numpy(generator.normal(size=(4, 5, width))).float().requires_grad_()
    targets = objective.targets(truth)
    losses = {"single": F.cross_entropy, "multi": F.binary_cross_entropy_with_logits, "regression": F.mse_loss}
    loss = sum(losses[kind](each, targets) for each in outputs)  # each probe's mean over the batch
    (expected,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(objective.gradient(outputs.detach(), targets), expected)


def test_blocks_hold_what_a_cache_holds_and_one_seed() -> None:
    probes = grid((WEIGHTED, 0, 1))
    shape = Shape(10, 0, 2)
    blocks = list(blocks_of(probes, 3 * shape.parameters, shape))
    assert sorted(position for block in blocks for position in block) == list(range(12))
    assert [len(block) for block in blocks] == [2] * 6
    assert all(len({(probes[i].seed, probes[i].input == WEIGHTED) for i in block}) == 1 for block in blocks)
    assert all(len(block) == 1 for block in blocks_of(probes, 1, shape))


class OnDisk(InMemory):
    """Features that are handed out in small pieces only."""

    most = 0

    def take(self, rows):
        OnDisk.most = max(OnDisk.most, len(rows))
        return super().take(rows)


def test_features_that_do_not_fit_into_memory_train_the_same_probes(monkeypatch) -> None:
    probes = grid((WEIGHTED, 1))
    held = fit(probes)
    monkeypatch.setattr("mert_core.probing.features.RESIDENT_BYTES", 0)
    for module in ("features", "train"):
        monkeypatch.setattr(f"mert_core.probing.{module}.SLAB_BYTES", 40 * 3 * 12 * 4)
    streamed = fit(probes, *(replace(split, features=OnDisk(split.features.tensor)) for split in (TRAIN, VALID)))
    assert OnDisk.most <= 40
    torch.testing.assert_close(streamed.weights, held.weights, rtol=1e-4, atol=1e-5)


def test_an_epoch_drops_the_right_share() -> None:
    kept = dropout_factors(200, ProbeSettings(hidden=512, dropout=0.2), torch.Generator().manual_seed(0))
    assert set(np.unique(kept.numpy())) == {np.float32(0), np.float32(1.25)}
    assert float((kept == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_a_tracks_output_is_the_mean_of_its_chunks() -> None:
    outputs = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    found = mean_over_tracks(outputs, np.array([1, 0, 1, 2, 2, 2]), 3)
    assert found.tolist() == [[[2, 3], [2, 3], [8, 9]]]
    with pytest.raises(MertError, match="no row"):
        mean_over_tracks(outputs, np.array([1, 1, 1, 2, 2, 2]), 3)


@pytest.mark.parametrize(
    ("number", "train", "valid", "message"),
    [
        (3, TRAIN, VALID, r"inputs \[3\]"),
        (1, replace(TRAIN, truth=TRAIN.truth - (np.arange(100) == TRAIN.truth.argmin())), VALID, "classes -1 to 3"),
        (1, replace(TRAIN, features=InMemory(TRAIN.features.tensor / 0)), VALID, "not finite"),
        (1, TRAIN, replace(VALID, truth=VALID.truth[1:]), "60 rows but truth of 59"),
    ],
)
def test_what_does_not_fit_is_refused(number, train, valid, message) -> None:
    with pytest.raises(MertError, match=message):
        fit((ProbeSpec(number, 1e-3, 0),), train, valid)
