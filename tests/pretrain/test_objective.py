"""The loss is the published sum, and equals a plain reference."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mert_core.pretrain.data import CropSource
from mert_core.pretrain.objective import build_objective
from mert_core.pretrain.optimiser import learning_rate
from mert_core.pretrain.tally import codebook_terms, tally, terms
from tests.pretrain.music import Tones, params


def test_loss_equals_a_plain_reference() -> None:
    music, codes = Tones().open()
    run = params()
    batch = CropSource(music, codes, run, "train", 0).batch(0, 4, range(4))
    objective = build_objective(run, 2, 16, seed=0)
    losses = objective(batch)

    output = objective.encoder(batch.noisy, mask=batch.mask)
    states = output.last_hidden_state[batch.mask]
    queries = objective.heads.final_proj(states).split(objective.heads.final_dim, dim=-1)
    entropy = sum(
        F.cross_entropy(
            F.cosine_similarity(queries[k][:, None], objective.heads.codebook_embeddings[k][None], dim=-1) / 0.1,
            batch.codes[batch.mask][:, k], reduction="sum",
        )
        for k in range(2)
    )  # fmt: skip
    cqt = (objective.heads.cqt_proj(states) - objective.cqt_target(batch)[batch.mask]).square().mean()
    penalty = output.conv_features.square().mean()
    expected = entropy + batch.masked_frames * (10 * penalty + cqt)
    torch.testing.assert_close(losses.weighted, expected, rtol=1e-5, atol=1e-3)

    named = terms(tally(losses, batch.masked_frames), run.weights)
    assert named["loss"] == pytest.approx(expected.item() / batch.masked_frames, rel=1e-5)
    assert named["acoustic"] == pytest.approx(entropy.item() / batch.masked_frames, rel=1e-5)
    per_codebook = codebook_terms(tally(losses, batch.masked_frames))
    assert per_codebook["acoustic_0"] + per_codebook["acoustic_1"] == pytest.approx(named["acoustic"])


def test_micro_batches_give_the_gradient_of_the_whole() -> None:
    music, codes = Tones().open()
    source = CropSource(music, codes, params(), "train", 0)
    objective = build_objective(params(), 2, 16, seed=0)

    def gradient(batches: list) -> torch.Tensor:
        objective.zero_grad()
        total = sum(batch.masked_frames for batch in batches)
        for batch in batches:
            (objective(batch).weighted / total).backward()
        return torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])

    batches = [source.batch(0, 4, range(2)), source.batch(0, 4, range(2, 4))]
    first, second = (gradient([batch]) for batch in batches)
    counts = [batch.masked_frames for batch in batches]
    torch.testing.assert_close(
        gradient(batches), (counts[0] * first + counts[1] * second) / sum(counts), rtol=1e-4, atol=1e-5
    )


def test_schedule_rises_then_falls_to_zero() -> None:
    run = params(warmup_steps=10, schedule_steps=110, learning_rate=1.0)
    assert [learning_rate(run, step) for step in (1, 5, 10, 60, 110, 200)] == pytest.approx(
        [0.1, 0.5, 1.0, 0.5, 0.0, 0.0]
    )
