"""Taking over a checkpoint from elsewhere: encoder and, where it has them, heads, so that its training can go on."""

from __future__ import annotations

import re
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
from mert_core.model.heads import Heads, save_heads
from mert_core.model.mert import MertModel


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        parameters: of the encoder.
        codes: codebooks and entries of the heads that predict codes, by teacher.
        spectra: bins of the heads that predict spectra, by teacher.
        sha256: what ``pretrain.start.sha256`` must be to start from it.
    """

    parameters: int
    codes: dict[str, tuple[int, int]]
    spectra: dict[str, int]
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
    codes, spectra = _shapes(heads or {}, source)
    if heads is not None:
        config = _with_heads(config, heads, codes, spectra, source)
    model = MertModel(config)
    copy_parameters(model, tensors, str(source))
    with atomic_folder(to) as temporary:
        model.save_pretrained(temporary)
        if heads is not None:
            save_heads(heads, temporary)
    return Imported(
        model.parameter_count(), {name: shape[:2] for name, shape in codes.items()}, spectra, fingerprint(to)
    )


def _shapes(heads: dict[str, Tensor], source: Path) -> tuple[dict[str, tuple[int, int, int]], dict[str, int]]:
    """Return codebooks, entries and width by teacher of codes, and bins by teacher of spectra, from tensor names."""
    codes: dict[str, tuple[int, int, int]] = {}
    spectra: dict[str, int] = {}
    for name, tensor in heads.items():
        if (match := re.fullmatch(r"codes\.([^.]+)\.codebook_embeddings", name)) and tensor.ndim == 3:
            codebooks, entries, final_dim = tensor.shape
            codes[match[1]] = codebooks, entries, final_dim
        elif (match := re.fullmatch(r"spectra\.([^.]+)\.bias", name)) and tensor.ndim == 1:
            spectra[match[1]] = len(tensor)
    if heads and not (codes or spectra):
        raise MertError(f"{source / HEADS_NAME} has no head of codes or of a spectrum; it is none of ours")
    return codes, spectra


def _with_heads(
    config: MertConfig,
    heads: dict[str, Tensor],
    codes: dict[str, tuple[int, int, int]],
    spectra: dict[str, int],
    source: Path,
) -> MertConfig:
    dims = sorted({shape[2] for shape in codes.values()}) or [config.final_dim]
    if len(dims) > 1:
        raise MertError(f"the heads in {source} predict in spaces of {dims} dimensions; expected one for all codebooks")
    learned = any(name.endswith(".log_scales") for name in heads)
    with torch.device("meta"):
        shapes = {name: (codebooks, entries) for name, (codebooks, entries, _) in codes.items()}
        expected = Heads(config.hidden_size, shapes, spectra, dims[0], 0.1, learn_temperature=learned)
    problems = misfits(dict(expected.named_parameters()), heads)
    if problems:
        raise MertError(
            f"the heads in {source} do not fit, {len(problems)} tensor(s):\n" + "\n".join(problems)
            + "\nTo take the encoder and leave the heads behind, give --encoder-only."
        )  # fmt: skip
    return replace(config, final_dim=dims[0])
