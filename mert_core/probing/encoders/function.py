"""An encoder given as a Python callable."""

from __future__ import annotations

import importlib
import inspect
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
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.probing.encoders.base import HiddenStates, resampler, weights_hash

_TRIAL_SECONDS = (1, 5)


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
