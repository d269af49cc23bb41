"""The loss is the published sum: each term equals an independent formula in float64, for every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from mert_core.errors import MertError
from mert_core.features.cqt import ConstantQ
from mert_core.features.mel import LogMel, chroma
from mert_core.training.loss import Losses, Objective, codebook_terms, mean_terms
from mert_core.training.targets import Batch, codes_of, spectra_of
from tests.training.music import crop_source, objective_of, params, predicted, target_set

CODEBOOKS = 2


def prepared(**changes: Any) -> tuple[Objective, Batch]:
    """Return an objective and a batch."""
    run = params(**changes)
    return objective_of(run), crop_source(run).batch(0, 4, range(4))


def losses(objective: Objective, batch: Batch, **changes: Any) -> Losses:
    """Return the losses of a batch of the run that ``params(**changes)`` is."""
    return objective(batch, target_set(params(**changes))(batch))


def at(objective: Objective, batch: Batch, where: Tensor) -> dict[str, Any]:
    """Return the terms at some frames, in numpy and float64, from the states and weights alone."""
    with torch.no_grad():
        output = objective.encoder(batch.noisy, mask=batch.mask)
        spectra = {"cqt": ConstantQ()(batch.clean), "logmel": LogMel()(batch.clean)}
        spectra["chroma"] = chroma(spectra["cqt"])
    states = output.last_hidden_state[where].double().numpy()
    weights = {name: value.detach().double().numpy() for name, value in objective.heads.named_parameters()}
    entropy = {name: np.zeros(kind.codebooks) for name, kind in codes_of(objective.specs).items()}
    correct = {name: np.zeros(kind.codebooks) for name, kind in codes_of(objective.specs).items()}
    for name, ids in batch.codebook_ids.items():
        head, own = objective.heads.codes[name], f"codes.{name}."
        projected = states @ weights[own + "final_proj.weight"].T + weights[own + "final_proj.bias"]
        for k in ids:
            query = projected[:, k * head.final_dim : (k + 1) * head.final_dim]
            table = weights[own + "codebook_embeddings"][k]
            cosines = query @ table.T / np.linalg.norm(table, axis=1) / np.linalg.norm(query, axis=1, keepdims=True)
            learned = own + "log_scales"
            scale = np.exp(weights[learned][k]) if learned in weights else 1 / head.temperature
            logits = cosines * min(scale, 100.0)
            codes = batch.stored[name][where][:, k].numpy()
            entropy[name][k] = (logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]).sum()
            correct[name][k] = (logits.argmax(axis=1) == codes).sum()
    errors = {}
    for name in spectra_of(objective.specs):
        guess = states @ weights[f"spectra.{name}.weight"].T + weights[f"spectra.{name}.bias"]
        errors[name] = float(((guess - spectra[name][:, : where.shape[1]][where].double().numpy()) ** 2).mean())
    share = {spec.teacher: spec.weight for spec in objective.specs}
    weighted = sum(share[name] * values.sum() for name, values in entropy.items())
    weighted += len(states) * sum(share[name] * error for name, error in errors.items())
    penalty = float(output.conv_features.double().square().mean())
    return {"entropy": entropy, "correct": correct, "errors": errors, "weighted": weighted, "penalty": penalty}


SPECTRA = predicted(tones=0.5, cqt=5.0, logmel=2.0, chroma=3.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "random": {"acoustic_codebooks": "random"},
    "top": {"acoustic_codebooks": "top"},
    "bottom": {"acoustic_codebooks": "bottom"},
    "temperature": {"temperature": 0.05},
    "learned temperature": {"learn_temperature": True},
    "weights": {"teachers": predicted(tones=0.5, cqt=5.0), "weights": {"feature_penalty": 0.0, "unmasked": 0.0}},
    "spectra": {"teachers": SPECTRA, "weights": {"feature_penalty": 1.0, "unmasked": 0.0}},
    "unmasked": {
        "teachers": predicted(tones=1.0, cqt=1.0, logmel=1.0),
        "weights": {"feature_penalty": 10.0, "unmasked": 0.5},
    },
    "two teachers of codes": {"teachers": predicted(tones=0.5, cqt=2.0, pitches=3.0)},
    "codes alone": {"teachers": predicted(pitches=1.0, tones=0.0)},
    "spectra alone": {"teachers": predicted(chroma=1.0), "weights": {"feature_penalty": 1.0, "unmasked": 0.0}},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_term_equals_its_formula(option: str) -> None:
    objective, batch = prepared(**OPTIONS[option])
    whole, sums = losses(objective, batch, **OPTIONS[option])
    expected, frames = at(objective, batch, batch.mask), batch.masked_frames
    loss = expected["weighted"] + frames * objective.weights.feature_penalty * expected["penalty"]
    others = objective.weights.unmasked and objective.weights.unmasked * at(objective, batch, ~batch.mask)["weighted"]
    assert whole.item() == pytest.approx(loss + others, rel=1e-5)
    terms = mean_terms(sums, objective)
    assert terms.pop("loss") == pytest.approx(loss / frames, rel=1e-5)
    assert terms.pop("feature_penalty") == pytest.approx(expected["penalty"], rel=1e-5)
    predicted_codebooks = [(name, k) for name, ids in batch.codebook_ids.items() for k in ids]
    if predicted_codebooks:
        correct = sum(values.sum() for values in expected["correct"].values())
        assert terms.pop("accuracy") == pytest.approx(correct / frames / len(predicted_codebooks))
    nats = {name: values.sum() / frames for name, values in expected["entropy"].items()}
    assert terms == pytest.approx({**nats, **expected["errors"]}, rel=1e-5)
    per_codebook = {}
    for name, k in predicted_codebooks:
        per_codebook[f"{name}_{k}"] = expected["entropy"][name][k] / frames
        per_codebook[f"accuracy_{name}_{k}"] = expected["correct"][name][k] / frames
    assert codebook_terms(sums, objective.specs) == pytest.approx(per_codebook, rel=1e-5)


def test_a_codebook_that_is_not_predicted_gets_no_gradient() -> None:
    objective, batch = prepared(acoustic_codebooks="bottom", learn_temperature=True)
    losses(objective, batch).weighted.backward()
    for name in ("codebook_embeddings", "log_scales", "final_proj.bias"):
        top, bottom = objective.heads.codes["tones"].get_parameter(name).grad.unflatten(0, (CODEBOOKS, -1))
        assert not top.any() and bottom.any()


def test_random_codebooks_are_fair_and_the_same_for_all_workers() -> None:
    source = crop_source(params(acoustic_codebooks="random"))
    drawn = [source.batch(first, 4, range(2)).codebook_ids["tones"] for first in range(0, 400, 4)]
    assert {len(chosen) for chosen in drawn} == {1}
    assert np.mean([chosen[0] for chosen in drawn]) == pytest.approx(0.5, abs=0.15)
    assert drawn[:9] == [source.batch(first, 4, range(2, 4)).codebook_ids["tones"] for first in range(0, 36, 4)]
    valid = crop_source(params(acoustic_codebooks="random"), "valid", corrupt=False)
    assert valid.batch(0, 4, range(4)).codebook_ids == {"tones": (0, 1)}


def test_a_learned_temperature_moves_and_stays_in_range() -> None:
    objective, batch = prepared(learn_temperature=True)
    losses(objective, batch).weighted.backward()
    head = objective.heads.codes["tones"]
    assert head.log_scales is not None and head.log_scales.grad is not None and head.log_scales.grad.all()
    with torch.no_grad():
        head.log_scales.fill_(50.0)
    logits = head(torch.randn(5, objective.encoder.config.hidden_size, generator=torch.Generator().manual_seed(0)))
    assert logits.abs().max() <= 100.001


def gradient(objective: Objective, batches: list[Batch], total: int) -> torch.Tensor:
    objective.zero_grad()
    for batch in batches:
        (losses(objective, batch).weighted / total).backward()
    return torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])


def test_workers_with_unlike_masks_are_normalised_by_the_frames_of_all() -> None:
    source = crop_source(params(weights={"feature_penalty": 0.0, "unmasked": 0.0}))
    objective = objective_of(source.params).eval()
    whole = source.batch(0, 4, range(4))
    mask = whole.mask.clone()
    mask[3] = False
    mask[3, :5] = True  # the second worker has far fewer masked frames than the first
    total = int(mask.sum())

    def share(clips: slice) -> Batch:
        counted = int(mask[clips].sum())
        stored = {name: codes[clips] for name, codes in whole.stored.items()}
        return Batch(whole.noisy[clips], whole.clean[clips], mask[clips], counted, whole.codebook_ids, stored)

    together = gradient(objective, [share(slice(0, 4))], total)
    apart = gradient(objective, [share(slice(0, 3)), share(slice(3, 4))], total)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-6)
    means = [gradient(objective, [share(clips)], int(mask[clips].sum())) for clips in (slice(0, 3), slice(3, 4))]
    assert not torch.allclose((means[0] + means[1]) / 2, together, rtol=1e-2, atol=1e-6)


def test_shape_options_reach_the_encoder() -> None:
    chosen = {"do_stable_layer_norm": False, "attention_relax": 32.0, "deepnorm": True}
    shape = objective_of(params(model={"preset": "mert-tiny", **chosen})).encoder.config
    assert {name: getattr(shape, name) for name in chosen} == chosen
    with pytest.raises(MertError, match="hidden_size=-3 "):
        objective_of(params(model={"preset": "mert-tiny", "hidden_size": -3}))
