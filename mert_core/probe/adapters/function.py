"""An encoder given as a Python callable."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.probe.adapters.wav2vec import resampler
from mert_core.probe.encoders import weights_hash

_TRIAL_SECONDS = (1, 5)


class FunctionEncoder:
    """What a callable answers; see `load_function`."""

    def __init__(self, function: Any, device: str, description: dict[str, Any]) -> None:
        self.function, self.device, self.description = function, device, description
        self.name = str(description["encoder"])
        self.resample = resampler(int(getattr(function, "sample_rate", SAMPLE_RATE)), device)
        shared = bool(getattr(function, "thread_safe", False))
        self._turn: AbstractContextManager[Any] = nullcontext() if shared else threading.Lock()
        few, many = (self._try(seconds) for seconds in _TRIAL_SECONDS)
        self.states, self.width = few.shape[0], few.shape[3]
        measured = (many.shape[2] - few.shape[2]) / (_TRIAL_SECONDS[1] - _TRIAL_SECONDS[0])
        self.frame_rate = float(getattr(function, "frame_rate", measured))
        if self.frame_rate <= 0:
            raise MertError(
                f"{self.name} answers {_TRIAL_SECONDS[1]} s with as many frames as {_TRIAL_SECONDS[0]} s "
                f"({few.shape[2]}); give its frames per second as an attribute frame_rate"
            )

    def _try(self, seconds: int) -> Tensor:
        noise = torch.randn(2, seconds * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
        return self.frames(noise.to(self.device))

    def pooled(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, width)."""
        return self.frames(waveform).mean(dim=2)

    @torch.no_grad()
    def frames(self, waveform: Tensor) -> Tensor:
        """Return (states, batch, frames, width).

        Raises:
            MertError: the callable returns something else.
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
                return states.to(self.device).float()
        raise MertError(
            f"{self.name} answers a waveform {tuple(resampled.shape)} with {found}; expected a tensor (batch, frames, "
            f"width) or (states, batch, frames, width) with a batch of {len(waveform)}"
        )

    def describe(self) -> dict[str, Any]:
        """Return name, source hash and, if it is a torch module, weights' hash."""
        return self.description


def load_function(spec: str, device: str) -> FunctionEncoder:
    """Make an encoder of a Python callable.

    ``module:function`` is imported, from the working directory too, and called without arguments. What it returns is
    called with waveforms (batch, samples), a tensor at 24 kHz on ``device``, and must answer with a tensor or array
    (batch, frames, width), or (states, batch, frames, width). It may have attributes: ``sample_rate`` (it then gets
    that rate), ``frame_rate`` (else measured), ``name``, and ``thread_safe``: true if several threads may call it at
    once. A torch module is moved to ``device`` and put into evaluation mode.

    Args:
        spec: ``module:function``.
        device: where it shall compute.

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
