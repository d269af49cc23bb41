from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

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
from mert_core.probing.train import Examples, train_probes
from tests.probing.material import CLASSES, RECIPE, SEEDS, examples, planted, scoring
from tests.probing.plain import train_plain

SINGLE = ProbeLoss("single", CLASSES)
RATES = [2e-3, 2e-2]


def splits(signal: float = 0.02):
    """Faint answers in state 1 of 3."""
    (train, truth), (valid, answers) = (planted(items, seed, 3, 1) for items, seed in ((100, 0), (60, 1)))
    return examples(train * signal, truth), examples(valid * signal, answers)


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
    probes = tuple(ProbeSpec(number, rate, seed) for number in (WEIGHTED, 0, 1) for rate in RATES for seed in (0, 1))
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
            np.testing.assert_allclose(
                trained.mixture(position), torch.softmax(plain.mixture, 0).detach().numpy(), atol=1e-5
            )
    assert slowed, "no rate fell: the test no longer sees a plateau"


def test_the_weights_are_those_of_the_best_epoch() -> None:
    train, valid = splits()
    probes = tuple(ProbeSpec(number, 2e-2, 0) for number in range(3))
    score = scoring("accuracy", valid.truth)
    trained = train_probes(probes, train, valid, SINGLE, replace(RECIPE, patience=3), score)
    assert (trained.epochs < RECIPE.max_epochs).any()
    assert score(trained.predict(valid.features)).tolist() == trained.validation.tolist()
    few = trained.only([2, 0])
    assert np.array_equal(few.predict(valid.features), trained.predict(valid.features, [2, 0]))


def test_same_seed_same_bits_and_other_seeds_other_weights() -> None:
    train, valid = splits()
    probes = tuple(ProbeSpec(number, 2e-3, seed) for number in range(3) for seed in SEEDS)
    score = scoring("accuracy", valid.truth)
    one, two = (train_probes(probes, train, valid, SINGLE, RECIPE, score) for _ in range(2))
    assert torch.equal(one.weights, two.weights)
    other = train_probes((ProbeSpec(1, 2e-3, 7),), train, valid, SINGLE, RECIPE, score)
    assert not torch.equal(other.weights[0], one.weights[3])


def test_the_number_of_threads_moves_no_bit() -> None:
    train, valid = splits()
    probes = tuple(ProbeSpec(number, rate, 0) for number in (WEIGHTED, 0, 1, 2) for rate in RATES)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(train_probes(probes, train, valid, SINGLE, RECIPE, scoring("accuracy", valid.truth)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].weights, found[1].weights)


def test_a_block_of_many_inputs_trains_the_same_probes(monkeypatch) -> None:
    train, valid = splits()
    probes = tuple(ProbeSpec(number, rate, seed) for number in (2, WEIGHTED, 0, 1) for rate in RATES for seed in (0, 1))
    score = scoring("accuracy", valid.truth)
    settings = replace(RECIPE, patience=3)
    expected = train_probes(probes, train, valid, SINGLE, settings, score)
    assert len(list(blocks_of(probes, None, expected.shape))) == 4
    monkeypatch.setattr(train_module, "CACHE_FLOATS", None)  # as on a GPU
    found = train_probes(probes, train, valid, SINGLE, settings, score)
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
    (expected,) = torch.autograd.grad(objective.loss(outputs, targets), outputs)
    torch.testing.assert_close(objective.gradient(outputs.detach(), targets), expected)


def test_blocks_hold_what_a_cache_holds_and_one_seed() -> None:
    probes = [ProbeSpec(number, rate, seed) for seed in (0, 1) for number in (WEIGHTED, 0, 1) for rate in (1e-2, 1e-3)]
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
    train, valid = splits()
    probes = tuple(ProbeSpec(number, rate, seed) for number in (WEIGHTED, 1) for rate in RATES for seed in (0, 1))
    score = scoring("accuracy", valid.truth)
    held = train_probes(probes, train, valid, SINGLE, RECIPE, score)
    monkeypatch.setattr("mert_core.probing.features.RESIDENT_BYTES", 0)
    for module in ("features", "train"):
        monkeypatch.setattr(f"mert_core.probing.{module}.SLAB_BYTES", 40 * 3 * 12 * 4)
    pieces = [replace(split, features=OnDisk(split.features.tensor)) for split in (train, valid)]
    streamed = train_probes(probes, *pieces, SINGLE, RECIPE, score)
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


def test_what_does_not_fit_is_refused() -> None:
    train, valid = splits()
    score = scoring("accuracy", valid.truth)
    with pytest.raises(MertError, match=r"inputs \[3\]"):
        train_probes((ProbeSpec(3, 1e-3, 0),), train, valid, SINGLE, RECIPE, score)
    with pytest.raises(MertError, match="classes -1 to 3"):
        unknown = replace(train, truth=np.where(np.arange(100) == 5, -1, train.truth))
        train_probes((ProbeSpec(1, 1e-3, 0),), unknown, valid, SINGLE, RECIPE, score)
    with pytest.raises(MertError, match="not finite"):
        broken = replace(train, features=InMemory(train.features.tensor / 0))
        train_probes((ProbeSpec(1, 1e-3, 0),), broken, valid, SINGLE, RECIPE, score)
    with pytest.raises(MertError, match="60 rows but truth of 59"):
        train_probes((ProbeSpec(1, 1e-3, 0),), train, replace(valid, truth=valid.truth[1:]), SINGLE, RECIPE, score)
