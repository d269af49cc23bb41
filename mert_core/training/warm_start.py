"""Warm start from a checkpoint: the folder that ``pretrain.start`` names, checked by hash, shape and teacher."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.errors import MertError
from mert_core.model.checkpoint import CONFIG_NAME, HEADS_NAME, fingerprint, load_weights, read_weights
from mert_core.model.config import MertConfig, load_config

if TYPE_CHECKING:
    from mert_core.config import WarmStart
    from mert_core.model.heads import Heads
    from mert_core.model.mert import MertModel

# What a run may change about an encoder without making another function of its weights.
_FREE = {
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "layerdrop",
    "feature_grad_mult",
    "attention_relax",
    "final_dim",
}


def start_folder(start: WarmStart | None, root: Path) -> Path | None:
    """Return the absolute folder of a checkpoint to start from; relative paths begin at ``root``."""
    return (root / start.folder).resolve() if start is not None else None


def start_input(start: WarmStart | None, root: Path) -> dict[str, str]:
    """Return the record's input ``start``, the hash of the checkpoint to start from; nothing without one.

    The hash stands in ``params.yaml``, so that another checkpoint in the same folder is another run to DVC, too.

    Raises:
        MertError: the folder is missing, or holds something else than the parameters say.
    """
    folder = start_folder(start, root)
    if folder is None or start is None:
        return {}
    if not (folder / CONFIG_NAME).is_file():
        raise MertError(f"pretrain.start.folder: {folder} holds no {CONFIG_NAME}; make one with `mert import`")
    sha256 = fingerprint(folder)
    if sha256 != start.sha256:
        raise MertError(
            f"the checkpoint in {folder} hashes to {sha256}, but pretrain.start.sha256 is {start.sha256}. "
            "Put the first in params.yaml if this is the checkpoint you mean."
        )
    return {"start": sha256}


def load_start(encoder: MertModel, heads: Heads, folder: Path, *, fresh_heads: bool) -> None:
    """Copy a checkpoint's weights into a run's encoder and, unless they are to be fresh, into its heads.

    Raises:
        MertError: it is of another shape, or its heads are missing or of another teacher.
    """
    stored = load_config(folder / CONFIG_NAME)
    differences = _differences(stored, encoder.config)
    if differences:
        raise MertError(
            f"the checkpoint in {folder} is another network than this run's: {'; '.join(differences)}. "
            "Choose the model that fits (the run's model: preset and the fields that differ)."
        )
    load_weights(encoder, read_weights(folder), str(folder))
    if fresh_heads:
        return
    if not (folder / HEADS_NAME).is_file():
        raise MertError(
            f"{folder} holds no {HEADS_NAME}, so that its heads cannot be trained on. "
            "To begin with new ones, set pretrain.start.heads: fresh."
        )
    try:
        heads.load(folder)
    except MertError as error:
        raise MertError(f"{error}\nIf the teacher is another one now, set pretrain.start.heads: fresh.") from error


def _differences(stored: MertConfig, wanted: MertConfig) -> list[str]:
    pairs = zip(asdict(stored).items(), asdict(wanted).values(), strict=True)
    return [f"{name} is {old}, the run's {new}" for (name, old), new in pairs if name not in _FREE and old != new]
