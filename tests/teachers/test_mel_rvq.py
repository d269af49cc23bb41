"""The Mel-RVQ and its training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mert_core.errors import MertError
from mert_core.teachers.mel_rvq import LinearResidualQuantizer, MelRvqSettings, train

SETTINGS = MelRvqSettings(codebooks=3, entries=32, dimension=4, fit_frames=2000, batch_frames=256, steps=60)


def vectors(count: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 24, generator=generator)
    found = torch.randn(count, 6, generator=generator).pow(3) @ mixing
    return (found - found.mean(0)) / found.std(0)


def model() -> LinearResidualQuantizer:
    return LinearResidualQuantizer(SETTINGS.codebooks, SETTINGS.entries, SETTINGS.dimension, 24)


def error(quantiser: LinearResidualQuantizer) -> float:
    return float((vectors() - quantiser.decode(quantiser.encode(vectors()))).square().mean())


def test_each_codebook_and_training_take_something_up() -> None:
    untrained = model()
    untrained.start(vectors(), torch.Generator().manual_seed(0))
    left, taken = [1.0], torch.zeros_like(vectors())
    books = zip(untrained.encode(vectors()).unbind(1), untrained.entries, untrained.up, strict=True)
    for book, entries, up in books:
        taken += (entries[book] @ up).detach()
        left.append(float((vectors() - taken).square().mean()))
    assert left == sorted(left, reverse=True) and left[-1] < 0.5
    trained = model()
    settings = SETTINGS.model_copy(update={"steps": 60, "learning_rate": 1e-2})
    train(trained, vectors(), settings, 0, None, lambda values, step: None)
    assert error(trained) < 0.9 * error(untrained)
    assert all(len(book.unique()) > 0.6 * SETTINGS.entries for book in trained.encode(vectors()).unbind(1))


def test_a_training_pass_has_the_codes_and_the_rest_of_encoding() -> None:
    quantiser = model()
    quantiser.start(vectors(), torch.Generator().manual_seed(0))
    made = quantiser(vectors())
    assert torch.equal(made.codes, quantiser.encode(vectors()))
    assert torch.allclose(made.left, vectors() - quantiser.decode(made.codes), atol=1e-5)
    made.left.square().mean().backward()
    assert all(float(part.grad.abs().sum()) > 0 for part in (quantiser.down, quantiser.up))


def test_an_entry_that_nothing_chooses_is_put_on_music(monkeypatch: pytest.MonkeyPatch) -> None:
    def far(self: LinearResidualQuantizer, given: torch.Tensor, generator: torch.Generator) -> None:
        start(self, given, generator)
        with torch.no_grad():
            self.entries[:, 16:] = 1e3

    start = LinearResidualQuantizer.start
    monkeypatch.setattr(LinearResidualQuantizer, "start", far)
    monkeypatch.setattr("mert_core.teachers.mel_rvq._COUNT_DECAY", 0.8)
    quantiser = model()
    train(quantiser, vectors(), SETTINGS, 0, None, lambda values, step: None)
    assert float(quantiser.entries.detach().abs().max()) < 100


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mert_core.teachers.mel_rvq._SAVE_EVERY", 25)
    whole = model()
    train(whole, vectors(), SETTINGS, 1, None, lambda values, step: None)

    class Killed(Exception):
        pass

    def kill(values: object, step: int | None) -> None:
        if step == 40:
            raise Killed

    with pytest.raises(Killed):
        train(model(), vectors(), SETTINGS, 1, tmp_path, kill)
    resumed, steps = model(), []
    train(resumed, vectors(), SETTINGS, 1, tmp_path, lambda values, step: steps.append(step))
    assert min(steps) == 30
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_a_rate_that_is_too_high_is_named() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(MertError, match=r"lower teachers\.mel-rvq\.learning_rate \(now 1e\+30\)"):
        train(model(), vectors(), settings, 0, None, lambda values, step: None)
