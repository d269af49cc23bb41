"""Taking over a checkpoint from elsewhere: encoder and, where it has them, heads, so that its training can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.files import atomic_folder
from mert_core.model.checkpoint import (
    CONFIG_NAME,
    HEADS_NAME,
    canonical_names,
    check_writable,
    copy_parameters,
    fingerprint,
    misfits,
    read_safetensors,
    read_weights,
)
from mert_core.model.config import MertConfig, load_config
from mert_core.model.fairseq import FairseqFile, heads_in_our_layout, mert_config, read_fairseq
from mert_core.model.heads import EXTRA_BINS, Heads, save_heads
from mert_core.model.mert import MertModel


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        parameters: of the encoder.
        codebooks: and ``entries`` of the heads; None without heads.
        entries: see there.
        sha256: what ``pretrain.start.sha256`` must be to start from it.
    """

    parameters: int
    codebooks: int | None
    entries: int | None
    sha256: str


def import_checkpoint(source: Path, to: Path, *, encoder_only: bool = False) -> Imported:
    """Write ``config.json``, ``model.safetensors`` and, where the source has heads, ``heads.safetensors``.

    Args:
        source: a folder as Hugging Face lays it out (HuBERT, MERT or one of ours), or a fairseq ``.pt`` file.
        to: is made, or replaces an older checkpoint.
        encoder_only: leave heads behind, where there are any.

    Raises:
        MertError: the source is unreadable or of another architecture, a tensor is missing, unknown or misshapen (all
            are named), or ``to`` holds other things; nothing is written.
    """
    check_writable(to)
    if source.is_dir():
        config = load_config(source / CONFIG_NAME)
        file = FairseqFile(read_weights(source), {}, {}, [])
    elif source.exists():
        file = read_fairseq(source)
        config = mert_config(file, source)
    else:
        raise MertError(
            f"{source} does not exist; expected a folder with config.json and weights, or a fairseq .pt file"
        )
    tensors, foreign_heads = canonical_names(file.tensors)
    heads: dict[str, Tensor] | None = None
    if not encoder_only:
        if (source / HEADS_NAME).is_file():
            heads = read_safetensors(source / HEADS_NAME)
        elif foreign_heads:
            heads = heads_in_our_layout(foreign_heads, file, str(source))
    if heads is not None:
        config = _with_heads(config, heads, source)
    model = MertModel(config)
    copy_parameters(model, tensors, str(source))
    with atomic_folder(to) as temporary:
        model.save_pretrained(temporary)
        if heads is not None:
            save_heads(heads, temporary)
    codebooks, entries = heads["codebook_embeddings"].shape[:2] if heads is not None else (None, None)
    return Imported(model.parameter_count(), codebooks, entries, fingerprint(to))


def _with_heads(config: MertConfig, heads: dict[str, Tensor], source: Path) -> MertConfig:
    table = heads.get("codebook_embeddings")
    if table is None or table.ndim != 3:
        raise MertError(f"{source / HEADS_NAME} has no codebook_embeddings of three dimensions; it is none of ours")
    codebooks, entries, final_dim = table.shape
    with torch.device("meta"):
        extra = [name for name in EXTRA_BINS if f"extra_proj.{name}.weight" in heads]
        expected = Heads(
            config.hidden_size, codebooks, entries, final_dim, 0.1, learn_temperature="log_scales" in heads, extra=extra
        )
    problems = misfits(dict(expected.named_parameters()), heads)
    if problems:
        raise MertError(
            f"the heads in {source} do not fit, {len(problems)} tensor(s):\n" + "\n".join(problems)
            + "\nTo take the encoder and leave the heads behind, give --encoder-only."
        )  # fmt: skip
    return replace(config, final_dim=final_dim)
