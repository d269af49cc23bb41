"""The acoustic teacher trained here: an RVQ-VAE with EnCodec's architecture, fitted on the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE, seconds_to_samples, whole_hops
from mert_core.config import Count, NonNegative, Positive, Section
from mert_core.data.sampler import Music, RandomCrops
from mert_core.errors import MertError
from mert_core.features.mel import mel_bank
from mert_core.teachers.base import Report, Sources, keep_state, restore_state
from mert_core.teachers.codec.encode import CodecTeacher
from mert_core.teachers.codec.model import Architecture, RvqVae

_LEAST_DEVIATION = 1e-4


@torch.no_grad()
def condition(model: RvqVae, waveform: Tensor) -> None:
    """Scale and shift every convolution so that its outputs on this batch have mean 0 and deviation 1.

    With torch's own start the encoder's latents of music vary by a few hundredths around a constant, and hundreds of
    steps pass before they tell one sound from another; then codebooks collapse. The decoder's last convolution gets
    the deviation of the waveform.

    Args:
        model: freshly made.
        waveform: (batch, samples) of music.
    """
    handles = [
        module.register_forward_hook(_normalize)
        for module in model.modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
    ]
    model(waveform, quantized=False)
    for handle in handles:
        handle.remove()
    last = [module for module in model.decoder.modules() if isinstance(module, nn.Conv1d)][-1]
    assert isinstance(last.weight_g, Tensor)
    last.weight_g.mul_(waveform.std())


def _normalize(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Change a convolution's gain and bias, and return what it would have put out with them."""
    mean = output.mean(dim=(0, 2))
    # A transposed convolution's gains belong to its inputs, so all its outputs share one factor.
    shared = isinstance(module, nn.ConvTranspose1d)
    deviation = (output - mean[:, None]).std() if shared else output.std(dim=(0, 2))
    deviation = deviation.clamp(min=_LEAST_DEVIATION)
    gain, bias = module.weight_g, module.bias
    assert isinstance(gain, Tensor) and isinstance(bias, Tensor)
    gain.div_(deviation if shared else deviation[:, None, None])
    bias.copy_((bias - mean) / deviation)
    return (output - mean[:, None]) / (deviation if shared else deviation[:, None])


# Window samples and mel bands of each scale; a hop is a quarter of the window.
SCALES = ((512, 40), (1024, 80), (2048, 80))
_FLOOR = 1e-5
_READOUT_WINDOW = 2048
_READOUT_BANDS = 128


class LogMelDistance(nn.Module):
    """Mean absolute difference of log-mel spectrograms at three time scales (EnCodec, eq. 2, L1 part), in nepers."""

    def __init__(self) -> None:
        super().__init__()
        for index, (window_samples, bands) in enumerate(SCALES):
            self.register_buffer(f"bank_{index}", mel_bank(window_samples, bands), persistent=False)
            self.register_buffer(f"window_{index}", torch.hann_window(window_samples), persistent=False)

    def log_mels(self, waveform: Tensor) -> list[Tensor]:
        """Return one log-mel spectrogram (batch, frames, bands) per scale of audio (batch, samples)."""
        spectrograms = []
        for index, (window_samples, _) in enumerate(SCALES):
            window: Tensor = getattr(self, f"window_{index}")
            spectrum = torch.stft(
                waveform, window_samples, window_samples // 4, window=window, center=True, return_complex=True
            )
            # The root's slope is infinite at silence, hence the power's floor.
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
            bank: Tensor = getattr(self, f"bank_{index}")
            spectrograms.append((magnitude.transpose(1, 2) @ bank).clamp(min=_FLOOR).log())
        return spectrograms

    def forward(self, decoded: Tensor, waveform: Tensor) -> Tensor:
        """Return the distance of two equally long batches (batch, samples), averaged over the scales."""
        with torch.no_grad():
            truth = self.log_mels(waveform)
        distances = [(mine - true).abs().mean() for mine, true in zip(self.log_mels(decoded), truth, strict=True)]
        return torch.stack(distances).mean()


class MelReadout(nn.Module):
    """Distance of a linear map of the quantized latents from the log-mel spectrum that a frame has just heard.

    Only for training; neither codes nor decoder depend on it afterwards. The decoder needs thousands of steps before
    it can play what the latents hold, and until then hardly tells the encoder what to put there; this tells it from
    the first step (compare the direct targets of SpeechTokenizer, arXiv 2308.16692, and Mel-RVQ, arXiv 2501.01108).
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.window: Tensor
        self.bank: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.linear = nn.Linear(dimension, _READOUT_BANDS)
        self.register_buffer("bank", mel_bank(_READOUT_WINDOW, _READOUT_BANDS), persistent=False)
        self.register_buffer("window", torch.hann_window(_READOUT_WINDOW), persistent=False)
        self.register_buffer("mean", torch.zeros(_READOUT_BANDS))
        self.register_buffer("deviation", torch.ones(_READOUT_BANDS))

    @torch.no_grad()
    def calibrate(self, waveform: Tensor) -> None:
        """Take each band's mean and deviation from a batch (batch, samples), so that no step is spent on them."""
        bands = self._log_mel(waveform).flatten(0, 1)
        self.mean.copy_(bands.mean(0))
        self.deviation.copy_(bands.std(0).clamp(min=0.1))

    def forward(self, latent: Tensor, waveform: Tensor) -> Tensor:
        """Return the mean absolute difference, in deviations, of (batch, dimension, frames) and (batch, samples)."""
        with torch.no_grad():
            truth = (self._log_mel(waveform) - self.mean) / self.deviation
        return (self.linear(latent.transpose(1, 2)) - truth).abs().mean()

    def _log_mel(self, waveform: Tensor) -> Tensor:
        # A window ends where its frame does: the encoder is causal.
        padded = nn.functional.pad(waveform, (_READOUT_WINDOW - HOP_SAMPLES, 0))
        spectrum = torch.stft(
            padded, _READOUT_WINDOW, HOP_SAMPLES, window=self.window, center=False, return_complex=True
        )
        return (spectrum.abs().transpose(1, 2) @ self.bank).clamp(min=_FLOOR).log()


_LOG_EVERY = 10
_SAVE_EVERY = 100
_VALIDATION_CLIPS = 32
_CLIP_NORM = 1.0
# The first share of the steps trains encoder and decoder alone. Quantized from the start, the latents of a fast
# learning encoder fall onto a few entries before the running means can follow (measured: 2 % of the entries in use
# after 60 steps).
_PLAIN_SHARE = 0.25
_START_BATCHES = 8


def train(
    params: RvqVaeSettings, music: Music, seed: int, state_folder: Path | None, report: Report
) -> tuple[RvqVae, dict[str, float]]:
    """Fit an RVQ-VAE on the training split.

    Adam on waveform L1, log-mel distance at three scales, the latents' log-mel readout and the commitment loss; the
    codebooks follow the latents by exponential moving average. A first quarter of the steps does not quantize; then
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
        distance, readout = LogMelDistance(), MelReadout(params.dimension)
        networks = [*model.encoder.parameters(), *model.decoder.parameters(), *readout.parameters()]
        optimizer = torch.optim.Adam(networks, lr=params.learning_rate, betas=(0.8, 0.99))
        plain_steps = round(_PLAIN_SHARE * params.steps)
        # Batches from number ``steps`` on are seen by no training step.
        condition(model, crops.batch(params.steps + 1, params.batch_clips))
        readout.calibrate(crops.batch(params.steps + 1, 4 * params.batch_clips))
        parts = {"model": model, "readout": readout, "optimizer": optimizer}
        first = restore_state(state_folder, parts)
        bar = tqdm(range(first, params.steps), desc="acoustic teacher", unit="step", initial=first, total=params.steps)
        for step in bar:
            # Torch's global RNG draws the vectors of k-means and of revivals: seeded per step, it needs no state.
            torch.manual_seed(seed + 1 + step)
            for group in optimizer.param_groups:
                group["lr"] = params.learning_rate * (1.0 - 0.9 * max(0.0, 2.0 * (step / params.steps) - 1.0))
            if step == plain_steps:
                with torch.no_grad():
                    batches = (crops.batch(params.steps + 1 + n, params.batch_clips) for n in range(_START_BATCHES))
                    model.start_codebooks(torch.cat([model.encoder(batch.unsqueeze(1)) for batch in batches]))

            waveform = crops.batch(step, params.batch_clips)
            made = model(waveform, quantized=step >= plain_steps)
            terms = {
                "waveform": (made.waveform - waveform).abs().mean(),
                "mel": distance(made.waveform, waveform),
                "readout": readout(made.latent, waveform),
                "commitment": made.commitment,
            }
            weighted = (getattr(params.weights, name) * value for name, value in terms.items())
            loss = sum(weighted, waveform.new_zeros(()))
            if not torch.isfinite(loss):
                raise MertError(
                    f"the acoustic teacher's loss is {loss.item()} at step {step}; lower "
                    f"teachers.rvqvae.learning_rate (now {params.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(networks, _CLIP_NORM)
            optimizer.step()

            if step % _LOG_EVERY == 0 or step == params.steps - 1:
                figures = {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
                bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()})
                report({f"train/{name}": value for name, value in figures.items()}, step)
            if state_folder and (step + 1) % _SAVE_EVERY == 0 and step + 1 < params.steps:
                keep_state(state_folder, step + 1, parts)
        model.eval()
        figures = validate(model, distance, music, params, seed)
    report({f"valid/{name}": value for name, value in figures.items()}, params.steps)
    return model, figures


def _crops(music: Music, split: str, params: RvqVaeSettings, seed: int) -> RandomCrops:
    length = whole_hops(seconds_to_samples(params.crop_seconds))
    return RandomCrops(music, split, length, seed, "teachers.rvqvae.crop_seconds")


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


class CodecWeights(Section):
    """Loss weights: waveform L1, multi-scale log-mel, the latents' log-mel readout, commitment."""

    waveform: NonNegative = 0.1
    mel: NonNegative = 1.0
    readout: NonNegative = 1.0
    commitment: NonNegative = 0.25


class RvqVaeSettings(Section):
    """Size and training; the sizes' defaults are EnCodec's at 6 kbps."""

    codebooks: Annotated[int, Field(ge=1, le=32)] = 8
    entries: Annotated[int, Field(ge=2, le=65536)] = 1024
    filters: Count = 32
    dimension: Count = 128
    crop_seconds: Positive = 1.0
    batch_clips: Count = 64
    steps: Count = 100_000
    learning_rate: Positive = 3e-4
    weights: CodecWeights = CodecWeights()


class RvqVaeTeacher(CodecTeacher):
    """RVQ-VAE trained on the corpus; losses: waveform L1, multi-scale mel, commitment, and a mel readout."""

    name = "rvqvae"
    title = "RVQ-VAE trained here (EnCodec's architecture)"
    speed = 60.0
    needs = "music"
    Settings = RvqVaeSettings

    def __init__(self, settings: RvqVaeSettings) -> None:
        shape = Architecture(settings.codebooks, settings.entries, settings.filters, settings.dimension)
        super().__init__(settings, shape, settings.codebooks)

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Train; an interrupted training goes on from its last state."""
        assert sources.music is not None  # it is what this teacher needs
        model, figures = train(self.settings, sources.music, sources.seed, sources.states, sources.report)
        self.adopt(model)
        return {name: round(value, 4) for name, value in figures.items()}
