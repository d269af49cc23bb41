from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_core.errors import MertError
from mert_core.probing.features import InMemory, moments
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import WEIGHTED, ProbeLoss, ProbeSpec
from mert_core.probing.selection import Selection, choose, every_probe, input_name, select
from mert_core.probing.significance import interval, scores_of
from tests.probing.material import CLASSES, RATES, RECIPE, SEEDS, examples, planted, scoring


def selected(train, valid) -> Selection:
    return select(
        examples(*train),
        examples(*valid),
        ProbeLoss("single", CLASSES),
        RECIPE,
        scoring("accuracy", valid[1]),
        rates=RATES,
        seeds=SEEDS,
        name="test",
    )


def answers(selection: Selection, features) -> np.ndarray:
    return selection.trained.predict(InMemory(torch.from_numpy(features)))


def test_the_state_that_holds_the_answer_is_chosen() -> None:
    selection = selected(planted(200, 0, layers=6), planted(100, 1, layers=6))
    features, truth = planted(150, 2, layers=6)
    choice = selection.choice
    assert choice.input == 3
    assert [probe.seed for probe in selection.trained.probes] == SEEDS
    assert METRICS["accuracy"](truth, answers(selection, features)).min() > 0.98
    assert choice.validation == dict(choice.by_input)[3] > 0.98
    assert [number for number, _ in choice.by_input] == [0, 1, 2, 3, 4, 5, WEIGHTED]
    assert max(score for number, score in choice.by_input if number not in {3, WEIGHTED}) < 0.6


def test_shuffled_labels_score_chance() -> None:
    generator = np.random.default_rng(0)
    train, valid, (features, truth) = (
        (features, generator.permutation(truth))
        for features, truth in (planted(200, 0), planted(100, 1), planted(400, 2))
    )
    selection = selected(train, valid)
    low, high = interval(scores_of(METRICS["accuracy"], truth, answers(selection, features), 500, seed=0))
    assert low < 1 / CLASSES < high
    assert high - low < 0.15


def test_choice_is_by_the_mean_over_seeds_and_ties_go_down() -> None:
    probes = [ProbeSpec(number, rate, seed) for number in (WEIGHTED, 0, 1) for rate in (1e-3, 1e-4) for seed in (0, 1)]
    choice = choose(probes, np.array([0.6, 0.6, 0.1, 0.1, 0.9, 0.1, 0.4, 0.4, 0.6, 0.6, 0.7, 0.5]))
    assert (choice.input, choice.rate, choice.validation) == (1, 1e-4, 0.6)
    assert choice.by_input == [(0, 0.5), (1, 0.6), (WEIGHTED, 0.6)]


def test_weighted_wins_where_it_is_better_and_has_a_name() -> None:
    probes = [ProbeSpec(number, 1e-3, 0) for number in (WEIGHTED, 0)]
    assert choose(probes, np.array([0.7, 0.6])).input == WEIGHTED
    assert (input_name(WEIGHTED), input_name(3)) == ("weighted", 3)
    with pytest.raises(MertError, match="no probe learned"):
        choose(probes, np.array([-np.inf, -np.inf]))


def test_a_95m_task_has_252_probes_and_a_floor_of_one_state_no_weighted_sum() -> None:
    rates = [5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2]
    assert len(set(every_probe(13, rates, SEEDS))) == 252
    assert {probe.input for probe in every_probe(1, rates, SEEDS)} == {0}


def test_standardisation_is_the_training_splits_and_spares_constants(monkeypatch) -> None:
    features = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 40 + 5
    features[0, :, 1] = 12.3
    whole = moments(InMemory(features))
    monkeypatch.setattr("mert_core.probing.features.SLAB_BYTES", 7 * 2 * 3 * 4)
    for found in (whole, moments(InMemory(features))):
        scaled = found.standardize(features.clone())
        torch.testing.assert_close(scaled[0, :, 1], torch.zeros(50), atol=1e-5, rtol=0)
        torch.testing.assert_close(scaled[1].std(dim=0, correction=0), torch.ones(3))
        torch.testing.assert_close(scaled[1].mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)


def test_a_scaled_encoder_scores_the_same() -> None:
    (train, truth), (valid, classes), (features, _) = planted(120, 0), planted(60, 1), planted(60, 2)
    plain = selected((train, truth), (valid, classes))
    scaled = selected((train * 1024, truth), (valid * 1024, classes))
    assert plain.choice == scaled.choice
    np.testing.assert_allclose(answers(plain, features), answers(scaled, features * 1024), rtol=1e-4, atol=1e-4)
