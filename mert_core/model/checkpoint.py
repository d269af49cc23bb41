"""Weights in and out under HuBERT's key names, and the export that ``transformers.HubertModel`` loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mert_core.errors import MertError
from mert_core.files import atomic_folder, atomic_path, write_json
from mert_core.model.config import hubert_fields, save_config

if TYPE_CHECKING:
    from mert_core.model.mert import MertModel

WEIGHTS_NAME = "model.safetensors"
LEGACY_NAME = "pytorch_model.bin"

# Other spellings of our names, applied in order: HuBERT wrapped for a task, new torch's weight norm, fairseq.
_RENAMES = [
    (r"^(?:hubert|module|model)\.", ""),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.weight$", r"feature_extractor.conv_layers.\1.conv.weight"),
    (r"^feature_extractor\.conv_layers\.0\.2\.", "feature_extractor.conv_layers.0.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
]
_HEADS = re.compile(r"^(final_proj|label_embs_concat|encoder_cqt_model|encoder_mel_model|lm_head|logit_temp)")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint folder under the names they were stored by.

    Raises:
        MertError: neither ``model.safetensors`` nor ``pytorch_model.bin`` is there, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (path := folder / WEIGHTS_NAME).exists():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise MertError(f"{path} is damaged ({error}). Make or fetch it again.") from error
    if (path := folder / LEGACY_NAME).exists():
        return torch.load(path, map_location="cpu", weights_only=True)
    raise MertError(f"{folder} holds neither {WEIGHTS_NAME} nor {LEGACY_NAME}; expected one of them beside config.json")


def canonical_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under our names; tensors of pre-training heads are left out."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if not _HEADS.match(name):
            renamed[name] = tensor
    return renamed


def encoder_state(model: MertModel) -> dict[str, Tensor]:
    """Return the encoder's own tensors, contiguous and on the CPU; the CQT's fixed filters are not among them."""
    return {name: value.detach().cpu().contiguous() for name, value in model.named_parameters()}


def load_weights(model: MertModel, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model.

    Raises:
        MertError: some are missing, unknown or misshapen; nothing has been copied then.
    """
    found = canonical_names(tensors)
    expected = dict(model.named_parameters())
    problems = [f"  missing: {name} {tuple(expected[name].shape)}" for name in expected if name not in found]
    problems += [f"  unknown: {name} {tuple(found[name].shape)}" for name in found if name not in expected]
    problems += [
        f"  misshapen: {name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if problems:
        raise MertError(
            f"{source} does not fit its configuration, {len(problems)} tensor(s):\n"
            + "\n".join(problems)
            + "\nCheck that config.json and the weights are of one model."
        )
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(found[name])


def _save(model: MertModel, folder: Path) -> None:
    from safetensors.torch import save_file

    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(encoder_state(model), temporary, metadata={"format": "pt"})


def save_pretrained(model: MertModel, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; see ``MertModel.save_pretrained``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_config(model.config, folder / "config.json")
    _save(model, folder)


def export_hubert(model: MertModel, folder: Path) -> None:
    """Write a folder that ``transformers.HubertModel.from_pretrained`` loads without remote code.

    Raises:
        MertError: HubertModel cannot represent this encoder (CQT input); nothing is written.
    """
    configuration = hubert_fields(model.config)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": model.config.sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": False,
        "return_attention_mask": True,
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", configuration)
        write_json(temporary / "preprocessor_config.json", preprocessor)
        _save(model, temporary)
