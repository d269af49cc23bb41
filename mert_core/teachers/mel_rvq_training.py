"""Training of the Mel-RVQ: resumable, and deterministic on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.teachers.base import Report
from mert_core.teachers.residual import LinearResidualQuantiser

if TYPE_CHECKING:
    from mert_core.teachers.mel_rvq import MelRvqSettings

_LOG_EVERY = 10
_SAVE_EVERY = 200
# How often entries that hardly any vector chose are put on vectors; not in the last part, where they settle.
_REVIVE_EVERY = 20
_REVIVING_SHARE = 0.8
# A running count below this share of a fair one is "hardly any".
_DEAD_SHARE = 0.1
_COUNT_DECAY = 0.98


def train(
    model: LinearResidualQuantiser,
    vectors: Tensor,
    settings: MelRvqSettings,
    seed: int,
    state_folder: Path | None,
    report: Report,
) -> None:
    """Train a quantiser in place.

    Adam on the mean squared error of the reconstruction, the codebook loss and the commitment loss, from principal
    directions and k-means; the learning rate falls linearly to 0.

    Args:
        model: freshly made.
        vectors: (vectors, width), mean 0 and deviation 1.
        settings: the section ``teachers.mel-rvq``.
        seed: of all draws; a step's are a function of it and the step.
        state_folder: where to keep and look for the state of an unfinished run; None keeps none.
        report: called with figures by name and the step.

    Raises:
        MertError: the loss is not finite.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    fair = settings.batch_frames / settings.entries
    counts = torch.full((settings.codebooks, settings.entries), fair)
    first = _restore(state_folder, model, optimiser, counts)
    if first == 0:
        model.start(vectors, torch.Generator().manual_seed(seed))
    bar = tqdm(range(first, settings.steps), desc="mel-rvq", unit="step", initial=first, total=settings.steps)
    for step in bar:
        generator = torch.Generator().manual_seed(seed + 1 + step)
        batch = vectors[torch.randint(len(vectors), (settings.batch_frames,), generator=generator)]
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - step / settings.steps)
        made = model(batch)
        error = made.left.square().mean()
        loss = error + made.codebook + settings.commitment * made.commitment
        if not torch.isfinite(loss):
            raise MertError(
                f"the Mel-RVQ's loss is {loss.item()} at step {step}; lower teachers.mel-rvq.learning_rate "
                f"(now {settings.learning_rate:g})"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        chosen = torch.stack([torch.bincount(book, minlength=settings.entries) for book in made.codes.unbind(1)])
        counts.lerp_(chosen.float(), 1.0 - _COUNT_DECAY)
        if (step + 1) % _REVIVE_EVERY == 0 and step < _REVIVING_SHARE * settings.steps:
            _revive(model, batch, counts, fair, generator)
        if step % _LOG_EVERY == 0 or step == settings.steps - 1:
            terms = {"error": error.item(), "commitment": made.commitment.item()}
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()})
            report({f"train/{name}": value for name, value in terms.items()}, step)
        if state_folder and (step + 1) % _SAVE_EVERY == 0 and step + 1 < settings.steps:
            _keep(state_folder, model, optimiser, counts, step + 1)


@torch.no_grad()
def _revive(
    model: LinearResidualQuantiser, batch: Tensor, counts: Tensor, fair: float, generator: torch.Generator
) -> None:
    left = batch
    codes = model.encode(batch)
    for book in range(len(counts)):
        entries = model.entries[book]
        low = left @ model.down[book]
        left = left - entries[codes[:, book]] @ model.up[book]
        dead = counts[book] < _DEAD_SHARE * fair
        picked = torch.randint(len(batch), (int(dead.sum()),), generator=generator)
        entries[dead] = low[picked]
        counts[book, dead] = fair


def _keep(folder: Path, model: LinearResidualQuantiser, optimiser: torch.optim.Adam, counts: Tensor, step: int) -> None:
    with atomic_path(folder / "state.pt") as path:
        state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict(), "counts": counts}
        torch.save(state, path)


def _restore(folder: Path | None, model: LinearResidualQuantiser, optimiser: torch.optim.Adam, counts: Tensor) -> int:
    if folder is None or not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    counts.copy_(state["counts"])
    return int(state["step"])
