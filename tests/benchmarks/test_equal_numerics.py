"""What is timed against each other computes the same: losses and gradients, at a small size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.comparators import crops as comparators
from benchmarks.comparators.hubert import copy_weights
from benchmarks.figures.crops import ours as our_crops
from benchmarks.figures.crops import songs
from benchmarks.figures.heads import our_loss, sides
from benchmarks.figures.probes import Task, check
from benchmarks.figures.step import reference
from benchmarks.student import batch, objective, student, target_set
from mert_core.model.config import MertConfig
from mert_core.probing.probe_bank import ProbeSettings
from mert_core.probing.selection import every_probe

RATE = 24000


def small(grad_mult: float = 0.1) -> MertConfig:
    shape = student("mert-95m", dropout=False)
    return replace(
        shape,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=(24,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feature_grad_mult=grad_mult,
    )


def test_the_steps_have_the_same_loss_and_gradients() -> None:
    shape = small()
    mine, other, crops = objective(shape).train(), reference(shape).train(), batch(shape, 2, 1.0)
    copy_weights(mine, other)
    ours, theirs = mine(crops, target_set()(crops)).weighted, other(crops)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward()
    theirs.backward()
    renamed = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value.grad
        for name, value in other.hubert.named_parameters()
    }
    for name, parameter in mine.encoder.named_parameters():
        gradient = renamed.pop(name)
        assert parameter.grad is not None and gradient is not None
        assert (parameter.grad - gradient).norm() <= 2e-4 * gradient.norm() + 1e-7, name
    assert not renamed
    gradient = mine.heads.spectra["cqt"].weight.grad
    assert gradient is not None and other.cqt_head.weight.grad is not None
    torch.testing.assert_close(gradient, other.cqt_head.weight.grad, rtol=1e-3, atol=1e-4)


def test_the_heads_have_the_same_loss_and_gradients() -> None:
    ours, theirs, states, codes = sides(frames=7)
    found, expected = our_loss(ours, states, codes), theirs(states, codes)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (mine,) = torch.autograd.grad(found, states, retain_graph=True)
    (other,) = torch.autograd.grad(expected, states, retain_graph=True)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    found.backward()
    expected.backward()
    assert ours.codebook_embeddings.grad is not None and theirs.label_embs_concat.grad is not None
    torch.testing.assert_close(
        ours.codebook_embeddings.grad.flatten(0, 1), theirs.label_embs_concat.grad, rtol=1e-4, atol=1e-5
    )


def test_every_reader_gives_crops_of_the_songs(tmp_path: Path) -> None:
    made, samples = songs(4, 2), RATE // 2
    comparators.write_shards(tmp_path, made, RATE)
    readers = {
        "ours": our_crops(tmp_path, made, samples, 4, 0),
        "flac": comparators.webdataset_flac(tmp_path, samples, 4, 0),
        "raw": comparators.webdataset_raw(tmp_path, samples, 4, 0),
        "seek": comparators.flac_seek(tmp_path, samples, 4, 0),
    }
    windows = [np.lib.stride_tricks.sliding_window_view(song, samples)[:, :16] for song in made]
    for name, reader in readers.items():
        crops = next(reader)
        assert crops.shape == (4, samples) and crops.dtype == torch.float32, name
        for crop in (crops * 32768).numpy():
            starts = [
                (song, int(at)) for song, w in enumerate(windows) for at in np.flatnonzero((w == crop[:16]).all(1))
            ]
            assert any(np.array_equal(made[song][at : at + samples], crop) for song, at in starts), name


@pytest.mark.parametrize("hidden", [0, 32])
def test_a_bank_and_a_loop_with_the_same_draws_give_the_same_probes(hidden: int) -> None:
    task, recipe = Task(states=3, width=16, items=330, held_out=60), ProbeSettings(hidden=hidden, max_epochs=4)
    assert check(task, every_probe(3, [1e-3, 1e-2], [0, 1])[::2], recipe) < 1e-4
    score = task.loop(every_probe(3, [1e-2], [0])[:1], recipe)[0][1]
    assert score > 0.3, "with draws of its own the loop learns nothing"
