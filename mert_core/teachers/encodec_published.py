"""EnCodec's published 24 kHz weights, unchanged."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.teachers.rvqvae import Architecture, RvqVae

PUBLISHED = Architecture(codebooks=32, entries=1024, filters=32, dimension=128)
CODEBOOKS_AT_6_KBPS = 8
_SHOWN = 5
_FILE = "encodec_24khz-d7cc33bc.th"


def load_published(path: Path) -> RvqVae:
    """Read a local copy of ``encodec_24khz-*.th`` (the state dict that the ``encodec`` package downloads).

    Label with its first `CODEBOOKS_AT_6_KBPS` codebooks: 8 × 10 bits × 75 Hz = 6 kbps, as MERT did.

    Raises:
        MertError: unreadable file, or other keys or shapes than the published model's.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MertError(f"teachers.acoustic.checkpoint: cannot read {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise MertError(
            f"teachers.acoustic.checkpoint: {path} is not a torch state dict ({reason}); expected {_FILE}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MertError(f"teachers.acoustic.checkpoint: {path} holds no state dict; expected {_FILE}")
    model = RvqVae(PUBLISHED)
    own = model.state_dict()
    problems = [
        *_listed("missing keys", sorted(own.keys() - state.keys())),
        *_listed("unknown keys", sorted(state.keys() - own.keys())),
        *_listed(
            "other shapes",
            [
                f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
                for name in sorted(own.keys() & state.keys())
                if state[name].shape != own[name].shape
            ],
        ),
    ]
    if problems:
        raise MertError(
            f"teachers.acoustic.checkpoint: {path} is not EnCodec's 24 kHz model: {'; '.join(problems)}. "
            f"Expected the state dict {_FILE}; or set checkpoint: null to train a teacher."
        )
    model.load_state_dict(state)
    return model.eval()


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"]
