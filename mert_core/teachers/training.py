"""Training of the acoustic teacher: crops in, a fitted RVQ-VAE out. Resumable, and deterministic on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mert_core.audio.frames import SAMPLE_RATE, seconds_to_samples, whole_hops
from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.teachers.conditioning import condition
from mert_core.teachers.crops import CropSampler, Music
from mert_core.teachers.losses import LogMelDistance, MelReadout
from mert_core.teachers.rvqvae import Architecture, RvqVae

if TYPE_CHECKING:
    from mert_core.teachers.rvqvae_trained import RvqVaeSettings

_LOG_EVERY = 10
_SAVE_EVERY = 100
_VALIDATION_CLIPS = 32
_CLIP_NORM = 1.0
# The first share of the steps trains encoder and decoder alone. Quantised from the start, the latents of a fast
# learning encoder fall onto a few entries before the running means can follow (measured: 2 % of the entries in use
# after 60 steps).
_PLAIN_SHARE = 0.25
_START_BATCHES = 8

Report = Callable[[Mapping[str, float], int | None], None]


def train(
    params: RvqVaeSettings, music: Music, seed: int, state_folder: Path | None, report: Report
) -> tuple[RvqVae, dict[str, float]]:
    """Fit an RVQ-VAE on the training split.

    Adam on waveform L1, log-mel distance at three scales, the latents' log-mel readout and the commitment loss; the
    codebooks follow the latents by exponential moving average. A first quarter of the steps does not quantise; then
    k-means over several batches' latents starts the codebooks. The learning rate falls linearly to a tenth over the
    last half.

    Args:
        params: the section ``teachers.rvqvae``.
        music: the corpus.
        seed: decides the initial weights, the crops and which vectors revive dead entries.
        state_folder: where to keep and look for the state of an unfinished run; None keeps none. The caller
            keys it by everything that the result depends on, and removes it after success.
        report: called with figures by name and the step.

    Returns:
        The model in evaluation mode, and its figures on the validation split.

    Raises:
        MertError: no track is as long as a crop; or the loss is not finite.
    """
    crops = _crops(music, "train", params, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RvqVae(Architecture(params.codebooks, params.entries, params.filters, params.dimension))
        distance = LogMelDistance()
        readout = MelReadout(params.dimension)
        networks = [*model.encoder.parameters(), *model.decoder.parameters(), *readout.parameters()]
        optimiser = torch.optim.Adam(networks, lr=params.learning_rate, betas=(0.8, 0.99))
        plain_steps = round(_PLAIN_SHARE * params.steps)
        condition(model, crops.batch(params.steps + 1, params.batch_clips))
        readout.calibrate(crops.batch(params.steps + 1, 4 * params.batch_clips))
        first = _restore(state_folder, model, readout, optimiser)
        bar = tqdm(range(first, params.steps), desc="acoustic teacher", unit="step", initial=first, total=params.steps)
        for step in bar:
            # Torch's global RNG draws the vectors of k-means and of revivals: seeded per step, it needs no state.
            torch.manual_seed(seed + 1 + step)
            for group in optimiser.param_groups:
                group["lr"] = params.learning_rate * _decay(step / params.steps)
            quantised = step >= plain_steps
            if step == plain_steps:
                _start_codebooks(model, crops, params)
            waveform = crops.batch(step, params.batch_clips)
            terms = _step(model, distance, readout, optimiser, networks, waveform, params, quantised)
            if not np.isfinite(terms["loss"]):
                raise MertError(
                    f"the acoustic teacher's loss is {terms['loss']} at step {step}; lower "
                    f"teachers.rvqvae.learning_rate (now {params.learning_rate:g})"
                )
            if step % _LOG_EVERY == 0 or step == params.steps - 1:
                bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()})
                report({f"train/{name}": value for name, value in terms.items()}, step)
            if state_folder and (step + 1) % _SAVE_EVERY == 0 and step + 1 < params.steps:
                _keep(state_folder, model, readout, optimiser, step + 1)
        model.eval()
        figures = validate(model, distance, music, params, seed)
    report({f"valid/{name}": value for name, value in figures.items()}, params.steps)
    return model, figures


def _crops(music: Music, split: str, params: RvqVaeSettings, seed: int) -> CropSampler:
    length = whole_hops(seconds_to_samples(params.crop_seconds))
    return CropSampler(music, split, length, seed, "teachers.rvqvae.crop_seconds")


def _decay(progress: float) -> float:
    return 1.0 - 0.9 * max(0.0, 2.0 * progress - 1.0)


@torch.no_grad()
def _start_codebooks(model: RvqVae, crops: CropSampler, params: RvqVaeSettings) -> None:
    batches = range(params.steps + 1, params.steps + 1 + _START_BATCHES)  # none that a training step sees
    latents = [model.encoder(crops.batch(step, params.batch_clips).unsqueeze(1)) for step in batches]
    model.start_codebooks(torch.cat(latents))


def _step(
    model: RvqVae,
    distance: LogMelDistance,
    readout: MelReadout,
    optimiser: torch.optim.Adam,
    networks: list[nn.Parameter],
    waveform: Tensor,
    params: RvqVaeSettings,
    quantised: bool,
) -> dict[str, float]:
    made = model(waveform, quantised)
    weights = params.weights
    terms = {
        "waveform": (made.waveform - waveform).abs().mean(),
        "mel": distance(made.waveform, waveform),
        "readout": readout(made.latent, waveform),
        "commitment": made.commitment,
    }
    loss = sum((getattr(weights, name) * value for name, value in terms.items()), waveform.new_zeros(()))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(networks, _CLIP_NORM)
    optimiser.step()
    return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}


@torch.no_grad()
def validate(
    model: RvqVae, distance: LogMelDistance, music: Music, params: RvqVaeSettings, seed: int
) -> dict[str, float]:
    """Return reconstruction figures on a fixed draw of clips (validation split; training split if that is empty).

    ``mel_nepers``: log-mel distance; ``waveform``: mean absolute error; ``usage_least``, ``usage_mean``: share of
    entries in use, least and mean over the codebooks.
    """
    try:
        crops = _crops(music, "valid", params, seed)
    except MertError:
        crops = _crops(music, "train", params, seed)
    waveform = crops.batch(params.steps, _VALIDATION_CLIPS)
    made = model(waveform)
    usage = [len(book.unique()) / params.entries for book in made.codes.unbind(dim=2)]
    return {
        "mel_nepers": distance(made.waveform, waveform).item(),
        "waveform": (made.waveform - waveform).abs().mean().item(),
        "usage_least": min(usage),
        "usage_mean": float(np.mean(usage)),
        "clip_seconds": crops.length / SAMPLE_RATE,
    }


def _keep(folder: Path, model: RvqVae, readout: MelReadout, optimiser: torch.optim.Adam, step: int) -> None:
    with atomic_path(folder / "state.pt") as path:
        state = {
            "step": step,
            "model": model.state_dict(),
            "readout": readout.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        torch.save(state, path)


def _restore(folder: Path | None, model: RvqVae, readout: MelReadout, optimiser: torch.optim.Adam) -> int:
    if folder is None or not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    readout.load_state_dict(state["readout"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
