"""Opening an encoder: of a run, a baseline, a folder of weights, or a Python callable.

A folder holds MERT, or HuBERT, wav2vec 2.0 or data2vec as ``transformers`` keeps them, at their own sample rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import MEL_STATISTICS, RANDOM_WEIGHTS, Config
from mert_core.errors import MertError
from mert_core.files import sha256_file, sha256_json
from mert_core.model.config import preset
from mert_core.model.mert import MertModel
from mert_core.parallel import choose_device
from mert_core.paths import Layout
from mert_core.probing.encoders.base import Encoder, HiddenStates, MelStatistics, ModelEncoder, resampler
from mert_core.probing.encoders.function import load_function

FAMILY = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "data2vec-audio": "Data2VecAudioModel"}
"""Model type → class of ``transformers``."""
_PUBLISHED_RATE = 16000  # of HuBERT and its kin, where no file says another
_UNUSED = {"masked_spec_embed"}  # speech recognisers are published without it, and nothing is masked here


def load_encoder(config: Config, layout: Layout, run: str) -> Encoder:
    """Return the encoder of a run, or a baseline: ``random-weights`` is the untrained network of ``probe.floor_run``.

    Raises:
        MertError: no such run, or its checkpoint is missing.
    """
    if run == MEL_STATISTICS:
        return MelStatistics(config.probe.mel_bins, choose_device(config.device))
    settings = config.run(config.probe.floor_run if run == RANDOM_WEIGHTS else run)
    if run == RANDOM_WEIGHTS:
        shape = preset(settings.model.preset, **settings.model.overrides)
        model = MertModel(shape, seed=config.seed)
    else:
        model = MertModel.from_pretrained(layout.model(run))
    return ModelEncoder(model.to(choose_device(settings.device)))


def open_encoder(spec: str, device: str = "cpu") -> Encoder:
    """Open any encoder to probe it.

    Args:
        spec: a folder with ``config.json`` and weights: MERT (ours, exported or published), or HuBERT, wav2vec 2.0 or
            data2vec as ``transformers`` writes them; or ``module:function``, see `load_function`.
        device: where it shall compute.

    Raises:
        MertError: no such folder, callable or kind of model, or it does not load or answer as it should.
    """
    folder = Path(spec).expanduser()
    if ":" in spec and not folder.exists():
        return load_function(spec, device)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise MertError(f"{folder} {found}; expected a folder with config.json and weights, or module:function")
    if not (folder / "config.json").is_file():
        raise MertError(f"{folder} has no config.json; expected a folder as transformers or `mert export` write it")
    config, preprocessor = _read(folder / "config.json"), {}
    if (folder / "preprocessor_config.json").is_file():
        preprocessor = _read(folder / "preprocessor_config.json")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise MertError(f"{folder / 'config.json'} has no model_type; expected one, such as hubert")
    rate = config.get("sample_rate") or preprocessor.get("sampling_rate")
    rate = rate or (SAMPLE_RATE if model_type == "mert_model" else _PUBLISHED_RATE)
    if not isinstance(rate, int) or not 1000 <= rate <= 200_000:
        raise MertError(f"{folder} says a sample rate of {rate!r}; expected hertz, such as 16000")

    if model_type == "mert_model" or (model_type == "hubert" and rate == SAMPLE_RATE):
        if rate != SAMPLE_RATE:
            raise MertError(f"{folder} is a MERT for {rate} Hz; expected {SAMPLE_RATE}")
        return ModelEncoder(MertModel.from_pretrained(folder).to(device))
    if model_type not in FAMILY:
        raise MertError(
            f"{folder / 'config.json'} describes a {model_type!r}; expected mert_model, "
            f"{', '.join(FAMILY)}, or give the encoder as a Python callable, module:function"
        )
    normalize = preprocessor.get("do_normalize") in (None, True)
    return Wav2VecEncoder(load_transformers(folder, model_type).to(device), folder, model_type, rate, normalize)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise MertError(f"{path} is not JSON: {error}. Make or fetch it again.") from error
    if not isinstance(content, dict):
        raise MertError(f"{path} holds a {type(content).__name__}; expected names and values")
    return content


class Wav2VecEncoder(HiddenStates):
    """HuBERT or its kin in evaluation mode: hidden states 0 to L, of waveforms resampled to its rate.

    Args:
        model: of ``transformers``, on its device.
        folder: where its weights lie, for their hash.
        model_type: key of `FAMILY`.
        rate: samples per second that it wants.
        normalize: bring each window to mean 0 and variance 1.
    """

    def __init__(self, model: nn.Module, folder: Path, model_type: str, rate: int, normalize: bool) -> None:
        self.model, self.normalize = model.eval(), normalize
        config: Any = model.config
        self.device = str(next(model.parameters()).device)
        self.states = config.num_hidden_layers + 1
        self.width = config.hidden_size
        self.frame_rate = rate / math.prod(config.conv_stride)
        self.resample = resampler(rate, self.device)
        files = [path for kind in ("*.json", "*.safetensors", "*.bin") for path in folder.glob(kind)]
        self.description = {
            "encoder": model_type,
            "content": sha256_json({path.name: sha256_file(path) for path in files}),
            "rate": rate,
            "normalise": normalize,  # spelled so in descriptions, whose hash stands in scores
        }

    def hidden(self, waveform: Tensor) -> Sequence[Tensor]:
        """Return the states of layers 0 to L."""
        waveform = self.resample(waveform)
        if self.normalize:  # as ``Wav2Vec2FeatureExtractor`` does; silence stays silence
            variance, mean = torch.var_mean(waveform, dim=-1, correction=0, keepdim=True)
            waveform = (waveform - mean) / torch.sqrt(variance + 1e-7)
        return self.model(waveform, output_hidden_states=True).hidden_states


def load_transformers(folder: Path, model_type: str) -> nn.Module:
    """Load a model of the family from a local folder.

    Raises:
        MertError: ``transformers`` is not installed, the weights do not fit the configuration, or cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise MertError(
            f"{folder} is a {model_type}, which needs the package transformers: pip install transformers"
        ) from error
    loud = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        model, loading = getattr(transformers, FAMILY[model_type]).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise MertError(f"transformers cannot load {folder}: {error}") from error
    finally:
        transformers.logging.set_verbosity(loud)
    problems = [f"missing: {name}" for name in sorted(set(loading["missing_keys"]) - _UNUSED)]
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        problems.append(f"misshapen: {name} {tuple(stored)}, expected {tuple(wanted)}")
    if problems:
        raise MertError(
            f"the weights in {folder} do not fit config.json, {len(problems)} tensor(s): "
            f"{'; '.join(problems[:8])}. Check that both are of one model."
        )
    return model
