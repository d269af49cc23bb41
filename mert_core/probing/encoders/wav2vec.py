"""HuBERT, wav2vec 2.0 and data2vec as ``transformers`` keeps them, at their own sample rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.probing.encoders.base import HiddenStates, normalized
from mert_core.probing.encoders.folder import ModelFolder

FAMILY = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "data2vec-audio": "Data2VecAudioModel"}
"""Model type → class of ``transformers``."""
_UNUSED = {"masked_spec_embed"}  # speech recognisers are published without it, and nothing is masked here


class Wav2VecEncoder(HiddenStates):
    """A model of that family in evaluation mode: hidden states 0 to L, of waveforms resampled to its rate.

    Args:
        model: of ``transformers``, on its device.
        rate: samples per second that it wants.
        normalize: bring each window to mean 0 and variance 1.
        description: what it is, its weights' hash included.
    """

    def __init__(self, model: nn.Module, rate: int, normalize: bool, description: dict[str, Any]) -> None:
        self.model, self.normalize, self.description = model.eval(), normalize, description
        config: Any = model.config
        self.device = str(next(model.parameters()).device)
        self.states = config.num_hidden_layers + 1
        self.width = config.hidden_size
        self.frame_rate = rate / math.prod(config.conv_stride)
        self.resample = resampler(rate, self.device)

    def hidden(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Return the states of layers 0 to L."""
        waveform = self.resample(waveform)
        return self.model(normalized(waveform) if self.normalize else waveform, output_hidden_states=True).hidden_states

    def describe(self) -> dict[str, Any]:
        """Return kind, content hash, rate and normalisation."""
        return self.description


def resampler(rate: int, device: str) -> nn.Module:
    """Return a module from 24 kHz to ``rate``, (batch, samples): a Kaiser-windowed sinc, 80 dB down within the band."""
    if rate == SAMPLE_RATE:
        return nn.Identity()
    from torchaudio.transforms import Resample

    return Resample(
        SAMPLE_RATE, rate, resampling_method="sinc_interp_kaiser", lowpass_filter_width=64, rolloff=0.95, beta=14.77
    ).to(device)


def load_wav2vec(folder: ModelFolder, device: str, normalize: bool | None) -> Wav2VecEncoder:
    """Load a model of the family from a local folder.

    Args:
        folder: where it lies.
        device: where it shall compute.
        normalize: as ``preprocessor_config.json`` says, where None.

    Raises:
        MertError: ``transformers`` is not installed, the weights do not fit the configuration, or cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise MertError(
            f"{folder.path} is a {folder.model_type}, which needs the package transformers: pip install transformers"
        ) from error
    loud = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        model, loading = getattr(transformers, FAMILY[folder.model_type]).from_pretrained(
            folder.path,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise MertError(f"transformers cannot load {folder.path}: {error}") from error
    finally:
        transformers.logging.set_verbosity(loud)
    problems = [f"missing: {name}" for name in sorted(set(loading["missing_keys"]) - _UNUSED)]
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        problems.append(f"misshapen: {name} {tuple(stored)}, expected {tuple(wanted)}")
    if problems:
        raise MertError(
            f"the weights in {folder.path} do not fit config.json, {len(problems)} tensor(s): "
            f"{'; '.join(problems[:8])}. Check that both are of one model."
        )
    if normalize is None:
        normalize = folder.normalize is not False
    description = {
        "encoder": folder.model_type,
        "content": folder.content_hash(),
        "rate": folder.rate,
        "normalise": normalize,  # spelled so in descriptions, whose hash stands in scores
    }
    return Wav2VecEncoder(model.to(device), folder.rate, normalize, description)
