"""Opening an encoder: of a run, a baseline, a folder of weights, or a Python callable.

A folder holds MERT, or HuBERT, wav2vec 2.0 or data2vec as ``transformers`` keeps them (`Wav2VecEncoder`); a callable is
given as ``module:function`` (`FunctionEncoder`). Both hear music at their own sample rate.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import sys
import threading
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
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
from mert_core.probing.encoders.base import Encoder, HiddenStates, MelStatistics, ModelEncoder, weights_hash

FAMILY = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "data2vec-audio": "Data2VecAudioModel"}
"""Model type → class of ``transformers``."""
_TRIAL_SECONDS = (1, 5)  # whose frames tell the frame rate of a callable that does not say it
_PUBLISHED_RATE = 16000  # of HuBERT and its kin, where no file says another
_UNUSED = {"masked_spec_embed"}  # speech recognisers are published without it, and nothing is masked here


def load_encoder(config: Config, layout: Layout, run: str) -> Encoder:
    """Return the encoder of a run or baseline; ``random-weights`` is the untrained network of ``probe.baseline_run``.

    Raises:
        MertError: no such run, or its checkpoint is missing.
    """
    if run == MEL_STATISTICS:
        return MelStatistics(config.probe.mel_bins, choose_device(config.device))
    settings = config.run(config.probe.baseline_run if run == RANDOM_WEIGHTS else run)
    if run == RANDOM_WEIGHTS:
        shape = preset(settings.model.preset, **settings.model.overrides)
        model = MertModel(shape, seed=config.seed)
    else:
        model = MertModel.from_pretrained(layout.model(run))
    return ModelEncoder(model.to(choose_device(settings.device)))


def open_encoder(spec: str, device: str = "cpu") -> Encoder:
    """Open any encoder to probe it.

    ``spec`` is a folder with ``config.json`` and weights: MERT (ours, exported or published), or HuBERT, wav2vec 2.0 or
    data2vec as ``transformers`` writes them; or ``module:function``, see `load_function`.

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


def resampler(rate: int, device: str) -> nn.Module:
    """Return a module from 24 kHz to ``rate``, (batch, samples): a Kaiser-windowed sinc, 80 dB down within the band."""
    if rate == SAMPLE_RATE:
        return nn.Identity()
    from torchaudio.transforms import Resample

    return Resample(
        SAMPLE_RATE, rate, resampling_method="sinc_interp_kaiser", lowpass_filter_width=64, rolloff=0.95, beta=14.77
    ).to(device)


class Wav2VecEncoder(HiddenStates):
    """HuBERT or its kin in evaluation mode: hidden states 0 to L, of waveforms resampled to its rate.

    If the model wants it, each window is brought to mean 0 and variance 1. The hash of the files in ``folder`` tells
    models apart.
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


class FunctionEncoder(HiddenStates):
    """What a callable answers; see `load_function`."""

    def __init__(self, function: Any, device: str, description: dict[str, Any]) -> None:
        self.function, self.device, self.description = function, device, description
        self.name = str(description["encoder"])
        self.resample = resampler(int(getattr(function, "sample_rate", SAMPLE_RATE)), device)
        shared = bool(getattr(function, "thread_safe", False))
        self._turn: AbstractContextManager[Any] = nullcontext() if shared else threading.Lock()
        self.states, _, _, self.width = self._try(SAMPLE_RATE).shape

    def _try(self, samples: int) -> Tensor:
        noise = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) * 0.1
        return self.frames(noise.to(self.device))

    @cached_property
    def frame_rate(self) -> float:
        """Frames per second: as the callable says, or from the lengths at which it answers with one frame more.

        Raises:
            MertError: it answers a longer sound with no more frames, or says a rate that is none.
        """
        if hasattr(self.function, "frame_rate"):
            said = float(self.function.frame_rate)
            if not said > 0:
                raise MertError(f"{self.name} says frame_rate {said:g}; expected frames per second, above 0")
            return said
        lengths = [seconds * SAMPLE_RATE for seconds in _TRIAL_SECONDS]
        few, many = (self._try(samples).shape[2] for samples in lengths)
        if many <= few:
            raise MertError(
                f"{self.name} answers {_TRIAL_SECONDS[1]} s with as many frames as {_TRIAL_SECONDS[0]} s "
                f"({few}); give its frames per second as an attribute frame_rate"
            )
        # The shortest sound of so many frames lies less than two hops below; the hop is known to within a frame.
        two_hops = math.ceil(2 * (lengths[1] - lengths[0]) / (many - few))
        shortest = []
        for longest, frames in zip(lengths, (few, many), strict=True):
            shorter = range(max(1, longest - two_hops) + 1, longest)
            skipped = bisect_left(shorter, frames, key=lambda samples: self._try(samples).shape[2])
            shortest.append(shorter.start + skipped)
        return (many - few) * SAMPLE_RATE / (shortest[1] - shortest[0])

    def hidden(self, waveform: Tensor) -> Sequence[Tensor]:
        """Return the states that the callable answers with.

        Raises:
            MertError: it returns something else.
        """
        resampled = self.resample(waveform)
        with self._turn:
            answer = self.function(resampled)
        found = f"a {type(answer).__name__}"
        if isinstance(answer, np.ndarray):
            answer = torch.from_numpy(answer)
        if isinstance(answer, Tensor):
            found = f"the shape {tuple(answer.shape)}"
            states = answer[None] if answer.ndim == 3 else answer
            if states.ndim == 4 and states.shape[1] == len(waveform) and 0 not in states.shape:
                return tuple(states.to(self.device))
        raise MertError(
            f"{self.name} answers a waveform {tuple(resampled.shape)} with {found}; expected a tensor (batch, frames, "
            f"width) or (states, batch, frames, width) with a batch of {len(waveform)}"
        )


def load_function(spec: str, device: str) -> FunctionEncoder:
    """Make an encoder of a Python callable.

    ``module:function`` is imported, from the working directory too, and called without arguments. What it returns is
    called with waveforms (batch, samples), a tensor at 24 kHz on ``device``, and must answer with a tensor or array
    (batch, frames, width), or (states, batch, frames, width). It may have attributes: ``sample_rate`` (it then gets
    that rate), ``frame_rate`` (else measured), ``name``, and ``thread_safe``: true if several threads may call it at
    once. A torch module is moved to ``device`` and put into evaluation mode.

    Raises:
        MertError: it cannot be imported or called, or does not answer so.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise MertError(f"{spec!r} names no callable; expected module:function, or a folder that exists")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MertError(
            f"cannot import {module_name!r} ({error}); expected module:function, importable from {here} or installed, "
            "or a folder that exists"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        found = f"is a {type(factory).__name__}" if hasattr(module, name) else "does not exist"
        raise MertError(f"{spec}: {name!r} {found}; expected a function without arguments that returns an encoder")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise MertError(f"{spec} takes {inspect.signature(factory)}; expected a function without arguments") from error
    function = factory()
    if not callable(function):
        raise MertError(f"{spec} returned a {type(function).__name__}; expected something to call with a waveform")
    description: dict[str, Any] = {"encoder": str(getattr(function, "name", spec))}
    if module.__file__:
        description["source"] = sha256_file(Path(module.__file__))
    if isinstance(function, nn.Module):
        function = function.to(device).eval()
        description["weights"] = weights_hash(function)
    return FunctionEncoder(function, device, description)
