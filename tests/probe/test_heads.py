from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mert_core.probe.heads import Examples, Probe, Recipe, batches, first_weights, predict, train_bank
from mert_core.probe.metrics import accuracy
from tests.probe.material import CLASSES, RECIPE, SEEDS, planted

RATE = 2e-3


def examples(items: int, seed: int, layers: int = 3, signal: float = 0.02) -> Examples:
    features, truth = planted(items, seed, layers=layers, answer=1)
    return Examples(torch.from_numpy(features) * signal, truth)


def plain(probe: Probe, train: Examples, valid: Examples, recipe: Recipe) -> tuple[list[torch.Tensor], float, int]:
    """The same training, as anyone would write it for one probe."""
    width = train.features.shape[-1]
    drawn, generator = first_weights(probe.seed, width, recipe.hidden, CLASSES)
    first, second = nn.Linear(width, recipe.hidden), nn.Linear(recipe.hidden, CLASSES)
    with torch.no_grad():
        first.weight.copy_(drawn[0].T), first.bias.copy_(drawn[1][0])
        second.weight.copy_(drawn[2].T), second.bias.copy_(drawn[3][0])
    optimiser = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=probe.rate)
    inputs, truth = train.features[probe.layer], torch.from_numpy(train.truth)
    best, best_epoch, weights = -1.0, 0, []
    for epoch in range(1, recipe.max_epochs + 1):
        for chosen, dropout in batches(generator, len(inputs), recipe):
            loss = nn.functional.cross_entropy(second(first(inputs[chosen]).relu() * dropout), truth[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            guesses = second(first(valid.features[probe.layer]).relu()).argmax(-1).numpy()
        score = float((guesses == valid.truth).mean())
        if score > best:
            best, best_epoch = score, epoch
            weights = [
                p.detach().clone() for p in (first.weight.T, first.bias[None], second.weight.T, second.bias[None])
            ]
        if epoch - best_epoch >= recipe.patience:
            break
    return weights, best, best_epoch


def test_a_bank_is_its_probes_trained_one_by_one() -> None:
    recipe = replace(RECIPE, max_epochs=10, patience=2)
    train, valid = examples(100, 0), examples(60, 1)
    probes = tuple(Probe(layer, RATE, seed) for layer in range(3) for seed in SEEDS)
    bank = train_bank(probes, train, valid, accuracy(CLASSES), recipe)
    assert len(set(bank.epochs.tolist())) > 1, (
        "all probes stopped together: the test no longer sees probes leave the bank"
    )
    for position, probe in enumerate(probes):
        weights, score, epoch = plain(probe, train, valid, recipe)
        assert bank.validation[position] == pytest.approx(score)
        assert bank.epochs[position] == epoch
        for ours, theirs in zip(bank.weights, weights, strict=True):
            torch.testing.assert_close(ours[position], theirs, rtol=1e-4, atol=1e-4)


def test_the_weights_are_those_of_the_best_epoch() -> None:
    train, valid = examples(100, 0), examples(60, 1)
    probes = tuple(Probe(layer, 2e-2, 0) for layer in range(3))
    bank = train_bank(probes, train, valid, accuracy(CLASSES), replace(RECIPE, patience=3))
    assert (bank.epochs < RECIPE.max_epochs).any()
    guesses = predict(bank.weights, valid.features, [0, 1, 2])
    assert (guesses == valid.truth).mean(axis=1).tolist() == bank.validation.tolist()


def test_same_seed_same_bits() -> None:
    train, valid = examples(100, 0), examples(60, 1)
    probes = tuple(Probe(layer, RATE, seed) for layer in range(3) for seed in SEEDS)
    one, two = (train_bank(probes, train, valid, accuracy(CLASSES), RECIPE) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.weights, two.weights, strict=True))
    other = train_bank((Probe(1, RATE, 7),), train, valid, accuracy(CLASSES), RECIPE)
    assert not torch.equal(other.weights[0][0], one.weights[0][3])


def test_an_epoch_sees_every_item_once_and_drops_the_right_share() -> None:
    recipe = replace(RECIPE, hidden=512, dropout=0.2)
    drawn = list(batches(torch.Generator().manual_seed(0), 100, recipe))
    assert sorted(torch.cat([chosen for chosen, _ in drawn]).tolist()) == list(range(100))
    kept = torch.cat([dropout for _, dropout in drawn])
    assert set(np.unique(kept.numpy())) == {np.float32(0), np.float32(1.25)}
    assert float((kept == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
