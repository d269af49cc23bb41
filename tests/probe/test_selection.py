from __future__ import annotations

import numpy as np
import torch

from mert_core.probe.heads import Probe
from mert_core.probe.metrics import accuracy
from mert_core.probe.selection import Selection, choose, moments, select
from tests.probe.material import CLASSES, RATES, RECIPE, SEEDS, planted


def selected(train, valid) -> Selection:
    return select(train, valid, accuracy(CLASSES), RECIPE, rates=RATES, seeds=SEEDS, name="test")


def test_the_layer_that_holds_the_answer_is_chosen() -> None:
    selection = selected(planted(200, 0), planted(100, 1))
    features, truth = planted(150, 2)
    assert selection.layer == 3
    assert (selection.predict(features[3]) == truth).mean() > 0.98
    assert selection.validation == dict(selection.by_layer)[3] > 0.98
    assert max(score for layer, score in selection.by_layer if layer != 3) < 0.6


def test_shuffled_labels_score_chance() -> None:
    generator = np.random.default_rng(0)
    (train, answers), valid, (features, truth) = planted(200, 0), planted(100, 1), planted(400, 2)
    selection = selected((train, generator.permutation(answers)), (valid[0], generator.permutation(valid[1])))
    score = (selection.predict(features[selection.layer]) == truth).mean()
    assert abs(score - 1 / CLASSES) < 0.1


def test_choice_is_by_the_mean_over_seeds_and_ties_go_down() -> None:
    probes = [Probe(layer, rate, seed) for layer in (0, 1) for rate in (1e-3, 1e-4) for seed in (0, 1)]
    layer, rate, averages = choose(probes, np.array([0.9, 0.1, 0.4, 0.4, 0.6, 0.6, 0.7, 0.5]))
    assert (layer, rate) == (1, 1e-4)
    assert averages[0, 1e-3] == 0.5


def test_standardisation_is_the_training_splits_and_spares_constants() -> None:
    features = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 40 + 5
    features[0, :, 1] = 12.5
    mean, deviation = moments(features)
    scaled = (features - mean) / deviation
    assert torch.all(scaled[0, :, 1] == 0)
    torch.testing.assert_close(scaled[1].std(dim=0, correction=0), torch.ones(3))


def test_a_scaled_encoder_scores_the_same() -> None:
    (train, truth), (valid, answers), (features, _) = planted(120, 0), planted(60, 1), planted(60, 2)
    plain = selected((train, truth), (valid, answers))
    scaled = selected((train * 1024, truth), (valid * 1024, answers))
    assert plain.by_layer == scaled.by_layer
    assert np.array_equal(plain.predict(features[3]), scaled.predict(features[3] * 1024))


def test_the_number_of_threads_moves_no_bit() -> None:
    train, valid = planted(120, 0), planted(60, 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(selected(train, valid))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert one.by_layer == two.by_layer
    assert all(torch.equal(a, b) for a, b in zip(one.weights, two.weights, strict=True))
