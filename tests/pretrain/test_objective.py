"""The loss is the published sum: each term equals an independent formula in float64, for every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mert_core.audio.cqt import ConstantQ
from mert_core.audio.spectra import LogMel, chroma
from mert_core.errors import MertError
from mert_core.pretrain.data import Batch, CropSource
from mert_core.pretrain.objective import Objective, build_objective
from mert_core.pretrain.optimiser import learning_rate
from mert_core.pretrain.tally import codebook_terms, tally, terms
from tests.pretrain.music import Tones, params

CODEBOOKS = 2


def prepared(**changes: Any) -> tuple[Objective, Batch]:
    """Return an objective in double precision and its batch."""
    music, codes = Tones().open()
    run = params(**changes)
    batch = CropSource(music, codes, run, "train", 0).batch(0, 4, range(4))
    return build_objective(run, CODEBOOKS, 16, seed=0), batch


def at(objective: Objective, batch: Batch, frames: NDArray[np.int64]) -> dict[str, Any]:
    """Return the terms by loops over some frames, in numpy and float64, from the states and weights alone."""
    with torch.no_grad():
        output = objective.encoder(batch.noisy, mask=batch.mask)
        spectra = {"musical": ConstantQ()(batch.clean), "mel": LogMel()(batch.clean)}
        spectra["chroma"] = chroma(spectra["musical"])
    states = output.last_hidden_state.double().numpy()
    weights = {name: value.detach().double().numpy() for name, value in objective.heads.named_parameters()}
    layers = {"musical": "cqt_proj", "mel": "extra_proj.mel", "chroma": "extra_proj.chroma"}
    dimension = objective.heads.final_dim
    entropy, correct = np.zeros(CODEBOOKS), np.zeros(CODEBOOKS)
    squares: dict[str, list[float]] = {name: [] for name in layers}
    for clip, frame in frames:
        state = states[clip, frame]
        projected = weights["final_proj.weight"] @ state + weights["final_proj.bias"]
        for k in batch.codebooks:
            query = projected[k * dimension : (k + 1) * dimension]
            table = weights["codebook_embeddings"][k]
            cosines = table @ query / np.linalg.norm(table, axis=1) / np.linalg.norm(query)
            scale = np.exp(weights["log_scales"][k]) if "log_scales" in weights else 1 / objective.heads.temperature
            logits = cosines * min(scale, 100.0)
            code = int(batch.codes[clip, frame, k])
            entropy[k] += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[code]
            correct[k] += logits.argmax() == code
        for name, layer in layers.items():
            if f"{layer}.weight" in weights:
                guess = weights[f"{layer}.weight"] @ state + weights[f"{layer}.bias"]
                squares[name].append(float(((guess - spectra[name][clip, frame].double().numpy()) ** 2).mean()))
    chosen = objective.weights
    errors = {name: float(np.mean(values)) if values else 0.0 for name, values in squares.items()}
    weighted = chosen.acoustic * entropy.sum()
    weighted += len(frames) * sum(getattr(chosen, name) * error for name, error in errors.items())
    features = output.conv_features.double().numpy()
    return {
        "acoustic": entropy, "correct": correct, "penalty": float((features**2).mean()), "weighted": weighted,
        "frames": len(frames), **errors,
    }  # fmt: skip


def reference(objective: Objective, batch: Batch) -> dict[str, Any]:
    """Return the whole loss and the terms of the masked frames."""
    found = at(objective, batch, np.argwhere(batch.mask.numpy()))
    found["masked"] = found["weighted"] / found["frames"] + objective.weights.feature_penalty * found["penalty"]
    found["weighted"] += found["frames"] * objective.weights.feature_penalty * found["penalty"]
    if objective.weights.unmasked:
        others = at(objective, batch, np.argwhere(~batch.mask.numpy()))
        found["weighted"] += objective.weights.unmasked * others["weighted"]
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "random": {"acoustic_codebooks": "random"},
    "top": {"acoustic_codebooks": "top"},
    "bottom": {"acoustic_codebooks": "bottom"},
    "temperature": {"temperature": 0.05},
    "learned temperature": {"learn_temperature": True},
    "weights": {"weights": {"acoustic": 0.5, "musical": 5.0, "feature_penalty": 0.0}},
    "spectra": {"weights": {"acoustic": 0.5, "musical": 5.0, "mel": 2.0, "chroma": 3.0, "feature_penalty": 1.0}},
    "unmasked": {"weights": {"acoustic": 1.0, "musical": 1.0, "mel": 1.0, "feature_penalty": 10.0, "unmasked": 0.5}},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_term_equals_its_formula(option: str) -> None:
    objective, batch = prepared(**OPTIONS[option])
    losses, expected = objective(batch), reference(objective, batch)
    np.testing.assert_allclose(losses.acoustic.numpy(), expected["acoustic"], rtol=1e-5)
    np.testing.assert_array_equal(losses.correct.numpy(), expected["correct"])
    for name in ("musical", "mel", "chroma"):
        assert getattr(losses, name).item() == pytest.approx(expected[name], rel=1e-5)
    assert losses.feature_penalty.item() == pytest.approx(expected["penalty"], rel=1e-5)
    assert losses.weighted.item() == pytest.approx(expected["weighted"], rel=1e-5)

    frames = expected["frames"]
    named = terms(tally(losses, frames), objective.weights)
    assert named["loss"] == pytest.approx(expected["masked"], rel=1e-5)
    assert {"mel", "chroma"} & named.keys() == {n for n in ("mel", "chroma") if getattr(objective.weights, n)}
    assert named["acoustic"] == pytest.approx(expected["acoustic"].sum() / frames, rel=1e-5)
    assert named["accuracy"] == pytest.approx(expected["correct"].sum() / frames / len(batch.codebooks))
    per_codebook = codebook_terms(tally(losses, frames))
    assert {f"acoustic_{k}" for k in batch.codebooks} == {name for name in per_codebook if "acoustic" in name}
    for k in batch.codebooks:
        assert per_codebook[f"acoustic_{k}"] == pytest.approx(expected["acoustic"][k] / frames, rel=1e-5)


def test_a_codebook_that_is_not_asked_gets_no_gradient() -> None:
    objective, batch = prepared(acoustic_codebooks="bottom", learn_temperature=True)
    objective(batch).weighted.backward()
    for name in ("codebook_embeddings", "log_scales", "final_proj.bias"):
        top, bottom = objective.heads.get_parameter(name).grad.unflatten(0, (CODEBOOKS, -1))
        assert not top.any() and bottom.any()


def test_random_codebooks_are_fair_and_the_same_for_all_workers() -> None:
    music, codes = Tones().open()
    source = CropSource(music, codes, params(acoustic_codebooks="random"), "train", 0)
    drawn = [source.batch(first, 4, range(2)).codebooks for first in range(0, 400, 4)]
    assert {len(chosen) for chosen in drawn} == {1}
    assert np.mean([chosen[0] for chosen in drawn]) == pytest.approx(0.5, abs=0.15)
    assert drawn[:9] == [source.batch(first, 4, range(2, 4)).codebooks for first in range(0, 36, 4)]
    asked = CropSource(music, codes, params(acoustic_codebooks="random"), "valid", 0, corrupt=False)
    assert asked.batch(0, 4, range(4)).codebooks == (0, 1)


def test_a_learned_temperature_moves_and_stays_in_range() -> None:
    objective, batch = prepared(learn_temperature=True)
    objective(batch).weighted.backward()
    scales = objective.heads.log_scales
    assert scales is not None and scales.grad is not None and scales.grad.all()
    with torch.no_grad():
        scales.fill_(50.0)
    logits = objective.heads.code_logits(
        torch.randn(5, objective.encoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    )
    assert logits.abs().max() <= 100.001


def gradient(objective: Objective, batches: list[Batch], total: int) -> torch.Tensor:
    objective.zero_grad()
    for batch in batches:
        (objective(batch).weighted / total).backward()
    return torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])


def test_workers_with_unlike_masks_are_normalised_by_the_frames_of_all() -> None:
    music, codes = Tones().open()
    source = CropSource(
        music, codes, params(weights={"acoustic": 1.0, "musical": 1.0, "feature_penalty": 0.0}), "train", 0
    )
    objective = build_objective(source.params, CODEBOOKS, 16, seed=0).eval()
    whole = source.batch(0, 4, range(4))
    mask = whole.mask.clone()
    mask[3] = False
    mask[3, :5] = True  # the second worker has far fewer masked frames than the first
    total = int(mask.sum())

    def share(clips: slice) -> Batch:
        counted = int(mask[clips].sum())
        return Batch(whole.noisy[clips], whole.clean[clips], whole.codes[clips], mask[clips], counted, whole.codebooks)

    together = gradient(objective, [share(slice(0, 4))], total)
    apart = gradient(objective, [share(slice(0, 3)), share(slice(3, 4))], total)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-6)
    means = [gradient(objective, [share(clips)], int(mask[clips].sum())) for clips in (slice(0, 3), slice(3, 4))]
    assert not torch.allclose((means[0] + means[1]) / 2, together, rtol=1e-2, atol=1e-6)


def test_micro_batches_give_the_gradient_of_the_whole() -> None:
    music, codes = Tones().open()
    source = CropSource(music, codes, params(), "train", 0)
    objective = build_objective(params(), CODEBOOKS, 16, seed=0)
    batches = [source.batch(0, 4, range(2)), source.batch(0, 4, range(2, 4))]
    counts = [batch.masked_frames for batch in batches]
    first, second = (gradient(objective, [batch], batch.masked_frames) for batch in batches)
    expected = (counts[0] * first + counts[1] * second) / sum(counts)
    torch.testing.assert_close(gradient(objective, batches, sum(counts)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer_norm", ["pre", "post"])
def test_shape_options_reach_the_encoder(layer_norm: str) -> None:
    objective = build_objective(params(layer_norm=layer_norm, attention_relax=32.0), CODEBOOKS, 16, seed=0)
    shape = objective.encoder.config
    assert shape.do_stable_layer_norm == (layer_norm == "pre") and shape.attention_relax == 32
    assert not shape.deepnorm
    with pytest.raises(MertError, match="post-LN"):
        build_objective(params(deepnorm=True), CODEBOOKS, 16, seed=0)
    assert build_objective(params(deepnorm=True, layer_norm="post"), CODEBOOKS, 16, seed=0).encoder.config.deepnorm


def test_schedule_rises_then_falls_to_zero() -> None:
    run = params(warmup_steps=10, schedule_steps=110, learning_rate=1.0)
    assert [learning_rate(run, step) for step in (1, 5, 10, 60, 110, 200)] == pytest.approx(
        [0.1, 0.5, 1.0, 0.5, 0.0, 0.0]
    )
