"""fairseq's side of a MERT checkpoint: its configuration, its label dictionaries, and its heads in our layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.files import atomic_folder
from mert_core.model.checkpoint import (
    CONFIG_NAME,
    HEADS_NAME,
    Inert,
    canonical_names,
    check_writable,
    copy_parameters,
    fingerprint,
    misfits,
    read_pickle,
    read_safetensors,
    read_weights,
    refuse,
    save_tensors,
    tensors_of,
)
from mert_core.model.config import PRESETS, MertConfig, load_config
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel

SPECIALS = 4
"""Rows that fairseq's dictionaries hold beside the labels: <s>, <pad>, </s>, <unk>. They come first."""

_FIELDS = {
    "encoder_embed_dim": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_embed_dim": "intermediate_size",
    "layer_norm_first": "do_stable_layer_norm",
    "conv_pos": "num_conv_pos_embeddings",
    "conv_pos_groups": "num_conv_pos_embedding_groups",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "feat_proj_dropout",
    "encoder_layerdrop": "layerdrop",
    "feature_grad_mult": "feature_grad_mult",
    "deepnorm": "deepnorm",
}
# Options of MERT's and HuBERT's fairseq code that make another network than ours, and the value that does not.
_UNSUPPORTED = {
    "extractor_mode": "default",
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "conv_bias": False,
    "audio_extract_type": "w2v_conv",
    "pos_conv_depth": 1,
    "target_glu": False,
    "subln": False,
    "do_cnn_feat_stable_layernorm": False,
    "wav_normalize": False,
    "feature_extractor_cqt": False,
}
_LEAVE_HEADS = "To take the encoder and leave the heads behind, give --encoder-only."
# What MERT's heads are called here: after its teachers.
_CODES, _SPECTRUM = "codes.encodec", "spectra.cqt"
_CONVOLUTIONS = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)\s*\]\s*(?:\*\s*(\d+))?")


@dataclass(frozen=True)
class FairseqFile:
    """What a fairseq checkpoint says.

    Attributes:
        tensors: the model's tensors under fairseq's names.
        model: configuration of the model; empty when the file holds none.
        task: configuration of the pre-training task.
        dictionaries: per codebook, the row of each symbol of its label dictionary; empty when the file holds none.
    """

    tensors: dict[str, Tensor]
    model: dict[str, Any]
    task: dict[str, Any]
    dictionaries: list[dict[str, int]]


def read_fairseq(path: Path) -> FairseqFile:
    """Read a fairseq ``.pt``, or a plain dictionary of tensors under fairseq's names; see ``read_pickle``.

    Raises:
        MertError: it is no such file, or cannot be read without running its code.
    """
    content = read_pickle(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return FairseqFile(tensors_of(content, path), {}, {}, [])
    configuration = _plain(content.get("cfg"))
    if not isinstance(configuration, dict):
        arguments = _plain(content.get("args"))  # fairseq before 2021: one flat namespace
        arguments = arguments if isinstance(arguments, dict) else {}
        configuration = {"model": arguments, "task": arguments}
    sections = [configuration.get(name) for name in ("model", "task")]
    model, task = (section if isinstance(section, dict) else {} for section in sections)
    state = content.get("task_state")
    stored = state.get("dictionaries") if isinstance(state, Mapping) else None
    dictionaries = []
    for dictionary in stored if isinstance(stored, Sequence) else []:
        attributes = dictionary.state if isinstance(dictionary, Inert) else None
        indices = attributes.get("indices") if isinstance(attributes, dict) else None
        if isinstance(indices, dict) and indices:
            dictionaries.append({str(symbol): int(row) for symbol, row in indices.items()})
    return FairseqFile(tensors_of(content["model"], path), model, task, dictionaries)


def _plain(value: Any) -> Any:
    """Return OmegaConf's and argparse's stand-ins as plain dictionaries, lists and values."""
    if isinstance(value, Inert):
        state = value.state
        if not isinstance(state, dict):
            return None
        if "_content" in state:
            return _plain(state["_content"])
        return _plain(state["_val"]) if "_val" in state else _plain(state)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def mert_config(file: FairseqFile, path: Path) -> MertConfig:
    """Return the shape that a fairseq checkpoint has.

    Raises:
        MertError: it is of another architecture, or it holds no configuration and is of no published size.
    """
    if not file.model:  # then the number of layers and the width must tell
        layers = len({match[1] for name in file.tensors if (match := re.search(r"encoder\.layers\.(\d+)\.", name))})
        width = next((value.numel() for name, value in file.tensors.items() if name.endswith("mask_emb")), 0)
        for name in ("mert-95m", "mert-330m"):
            if (PRESETS[name].num_hidden_layers, PRESETS[name].hidden_size) == (layers, width):
                return PRESETS[name]
        raise MertError(
            f"{path} holds no configuration, and {layers} layers of width {width} are no published size (12 of 768 or "
            "24 of 1024), so that heads, norm order and strides cannot be known. Give the whole fairseq checkpoint."
        )
    wrong = [
        f"{name}={file.model[name]!r} (expected {value!r})"
        for name, value in _UNSUPPORTED.items()
        if name in file.model and file.model[name] != value
    ]
    missing = [name for name in list(_FIELDS)[:4] if name not in file.model]
    if wrong or missing:
        lacks = f"; its configuration lacks {', '.join(missing)}" if missing else ""
        raise MertError(f"{path} is of another architecture: {', '.join(wrong) or 'unknown'}{lacks}")
    values = {ours: file.model[theirs] for theirs, ours in _FIELDS.items() if theirs in file.model}
    values.setdefault("do_stable_layer_norm", False)
    # fairseq evaluates "[(512,10,5)] + [(512,3,2)] * 4" as Python; here it is read.
    layers_text = _CONVOLUTIONS.findall(str(file.model.get("conv_feature_layers", "")))
    convolutions = [map(int, layer) for *layer, times in layers_text for _ in range(int(times or 1))]
    if convolutions:
        dims, kernels, strides = zip(*convolutions, strict=True)
        values |= {"conv_dim": dims, "conv_kernel": kernels, "conv_stride": strides}
    if "label_embs_concat" in file.tensors:
        values["final_dim"] = file.tensors["label_embs_concat"].shape[-1]
    relax = max(0.0, float(file.model.get("attention_relax") or 0.0))
    rate = int(file.task.get("sample_rate") or 24000)
    return MertConfig(**values, attention_relax=relax, sample_rate=rate)


def heads_in_our_layout(found: dict[str, Tensor], file: FairseqFile, source: str) -> dict[str, Tensor]:
    """Return fairseq's head tensors under the names and shapes of ``heads.Heads``; the table keeps only label rows.

    Raises:
        MertError: some are missing or unknown, all of them named, or the table's rows cannot be told apart.
    """
    left = {name: value for name, value in found.items() if not name.startswith("encoder_cqt_model.spec_layer.")}
    taken: dict[str, Tensor] = {}
    missing: list[str] = []

    def take(theirs: str, ours: str) -> None:
        if theirs in left:
            taken[ours] = left.pop(theirs)
        else:
            missing.append(f"  missing: {theirs}")

    for part in ("weight", "bias"):
        numbers = [int(match[1]) for name in left if (match := re.fullmatch(rf"final_projs\.(\d+)\.{part}", name))]
        if numbers:  # trained with a random codebook: one linear each
            apart = [left.pop(f"final_projs.{number}.{part}") for number in sorted(numbers)]
            left[f"final_proj.{part}"] = torch.cat(apart)
        take(f"final_proj.{part}", f"{_CODES}.final_proj.{part}")
        take(f"encoder_cqt_model.fc.{part}", f"{_SPECTRUM}.{part}")
    take("label_embs_concat", "table")
    if "logit_temp_list" in left:
        take("logit_temp_list", f"{_CODES}.log_scales")
    problems = missing + [f"  unknown: {name} {tuple(value.shape)}" for name, value in left.items()]
    refuse(problems, f"the heads in {source} are not MERT's", _LEAVE_HEADS)
    projection = taken[f"{_CODES}.final_proj.weight"]
    taken[f"{_CODES}.codebook_embeddings"] = _label_rows(taken.pop("table"), projection, file, source)
    return taken


def _label_rows(table: Tensor, projection: Tensor, file: FairseqFile, source: str) -> Tensor:
    """Return (codebooks, entries, final_dim): row k of a codebook is that of its label k."""
    if table.ndim != 2 or projection.shape[0] % table.shape[1]:
        raise MertError(
            f"{source}: label_embs_concat is {tuple(table.shape)} and final_proj.weight {tuple(projection.shape)}; "
            f"expected a whole number of codebooks (untied projections). {_LEAVE_HEADS}"
        )
    codebooks = projection.shape[0] // table.shape[1]
    if table.shape[0] % codebooks:
        raise MertError(
            f"{source}: {table.shape[0]} label rows do not divide among {codebooks} codebooks; codebooks of different "
            f"sizes are not supported. {_LEAVE_HEADS}"
        )
    tables = table.unflatten(0, (codebooks, -1))
    rows = tables.shape[1]
    from_arrays = bool(file.task.get("numpy_memmap_label"))
    if len(file.dictionaries) == codebooks:
        counts = {sum(symbol.isdecimal() for symbol in symbols) for symbols in file.dictionaries}
        entries = min(counts)
        known = all(str(label) in symbols for symbols in file.dictionaries for label in range(entries))
        if len(counts) > 1 or not known or not 0 < entries <= rows:
            raise MertError(
                f"{source}: its dictionaries do not name the labels 0, 1, 2, … of {rows} rows per codebook. "
                f"{_LEAVE_HEADS}"
            )
        if not from_arrays:
            order = [[symbols[str(label)] for label in range(entries)] for symbols in file.dictionaries]
            return torch.stack([book[index] for book, index in zip(tables, order, strict=True)])
    else:  # codebooks have a power of two of entries
        entries = next((n for n in (rows, rows - SPECIALS) if n > 1 and n.bit_count() == 1), 0)
        if not entries:
            raise MertError(
                f"{source}: {rows} label rows per codebook are neither a power of two nor {SPECIALS} more, and the "
                f"file holds no dictionaries to tell them by. {_LEAVE_HEADS}"
            )
    # Labels read from arrays are row numbers as they are; labels read from text go through the dictionary.
    first = 0 if from_arrays else rows - entries
    return tables[:, first : first + entries].contiguous()


@dataclass(frozen=True)
class Imported:
    """What an import has written.

    Attributes:
        parameters: number of the encoder's trained values.
        codes: number of codebooks and of entries of the heads that predict codes, by teacher.
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
        to: new folder, or one with an older checkpoint, which is replaced.
        encoder_only: whether to leave heads behind, where there are any.

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
    codes: dict[str, tuple[int, int]] = {}
    spectra: dict[str, int] = {}
    if heads is not None:
        codes, spectra, final_dim = _check_heads(heads, config, source)
        config = replace(config, final_dim=final_dim)
    model = MertModel(config)
    copy_parameters(model, tensors, str(source))
    with atomic_folder(to) as temporary:
        model.save_pretrained(temporary)
        if heads is not None:
            save_tensors(heads, temporary / HEADS_NAME)
    return Imported(model.parameter_count(), codes, spectra, fingerprint(to))


def _check_heads(
    heads: dict[str, Tensor], config: MertConfig, source: Path
) -> tuple[dict[str, tuple[int, int]], dict[str, int], int]:
    """Return codebooks and entries by teacher of codes, bins by teacher of spectra, and the width of their space.

    Raises:
        MertError: the tensors are not those of such heads on that encoder.
    """
    codes: dict[str, tuple[int, int]] = {}
    spectra: dict[str, int] = {}
    dims: set[int] = set()
    for name, tensor in heads.items():
        if (match := re.fullmatch(r"codes\.([^.]+)\.codebook_embeddings", name)) and tensor.ndim == 3:
            codes[match[1]] = tensor.shape[0], tensor.shape[1]
            dims.add(tensor.shape[2])
        elif (match := re.fullmatch(r"spectra\.([^.]+)\.bias", name)) and tensor.ndim == 1:
            spectra[match[1]] = len(tensor)
    if heads and not (codes or spectra):
        raise MertError(f"{source / HEADS_NAME} has no head of codes or of a spectrum; it is none of ours")
    if len(dims) > 1:
        raise MertError(
            f"the heads in {source} predict in spaces of {sorted(dims)} dimensions; expected one for all codebooks"
        )
    final_dim = dims.pop() if dims else config.final_dim
    learned = any(name.endswith(".log_scales") for name in heads)
    with torch.device("meta"):
        expected = Heads(config.hidden_size, codes, spectra, final_dim, 0.1, learn_temperature=learned)
    problems = misfits(dict(expected.named_parameters()), heads)
    refuse(problems, f"the heads in {source} do not fit", _LEAVE_HEADS)
    return codes, spectra, final_dim
