"""Weights in and out under HuBERT's key names; of other people's files only weights and plain data come through."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_file, sha256_json
from mert_core.model.config import MertConfig, save_config

WEIGHTS_NAME = "model.safetensors"
LEGACY_NAME = "pytorch_model.bin"
HEADS_NAME = "heads.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
_OWN = {WEIGHTS_NAME, HEADS_NAME, CONFIG_NAME, CARD_NAME, "preprocessor_config.json"}

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
_HEADS = re.compile(r"^(final_projs?\.|label_embs_concat$|encoder_cqt_model\.|logit_temp_list$)")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint folder under the names they were stored by.

    Raises:
        MertError: neither ``model.safetensors`` nor ``pytorch_model.bin`` is there, or the file is damaged.
    """
    if (path := folder / WEIGHTS_NAME).is_file():
        return read_safetensors(path)
    if (path := folder / LEGACY_NAME).is_file():
        return tensors_of(read_pickle(path), path)
    raise MertError(f"{folder} holds neither {WEIGHTS_NAME} nor {LEGACY_NAME}; expected one of them beside config.json")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        MertError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise MertError(f"cannot read {path}: {error.strerror or error}. Expected a safetensors file.") from error
    except SafetensorError as error:
        raise MertError(f"{path} is damaged ({error}). Make or fetch it again.") from error


# Packages whose classes fairseq checkpoints mention; a file that mentions others is refused.
_KNOWN_PACKAGES = {
    *("argparse", "collections", "enum", "pathlib", "typing"),
    *("examples", "fairseq", "fairseq_cli", "hydra", "mert_fairseq", "numpy", "omegaconf"),
}
_HARMLESS_BUILTINS = {f"builtins.{kind.__name__}" for kind in (bool, dict, float, int, list, object, set, str, tuple)}


class Inert:
    """Stands for an object of a foreign class: holds its state, behaves in no way.

    Attributes:
        state: state that the file restored into it; None if there was none.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        """Ignore whatever the file made it with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_pickle(path: Path) -> Any:
    """Read a file of ``torch.save`` without running any of its code; foreign objects in it become ``Inert``.

    fairseq keeps its configuration, dictionaries and meters beside the weights, as objects of classes that are not
    installed here; ``torch.load(weights_only=True)`` refuses such a file as a whole. So every class of a known package
    is replaced by ``Inert``, still with ``weights_only=True``: the file decides neither what is imported nor called.

    Raises:
        MertError: no such file, it is damaged, or it mentions what no checkpoint needs.
    """
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"  # before torch 1.6: no list of names can be had beforehand
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if zipped else []
        refused = [n for n in names if n.partition(".")[0] not in _KNOWN_PACKAGES and n not in _HARMLESS_BUILTINS]
        if refused:
            raise MertError(
                f"{path} mentions {', '.join(refused)}, which no checkpoint needs. It is not read. If you trust its "
                "maker, save its weights alone, as a dictionary of tensors, where it was made."
            )
        kinds = {name: type(name.rpartition(".")[2], (Inert,), {}) for name in names}
        with torch.serialization.safe_globals([(kind, name) for name, kind in kinds.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MertError(f"cannot read {path}: {error.strerror}. Expected a checkpoint file.") from error
    except pickle.UnpicklingError as error:
        raise MertError(
            f"{path} is no checkpoint that can be read without running its code ({_first_line(error)}). Save its "
            "weights alone, as a dictionary of tensors, where it was made: "
            "torch.save({'model': torch.load(FILE)['model']}, NEW)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        # torch's reader of a damaged file fails in all of these ways
        raise MertError(f"{path} is damaged ({_first_line(error)}). Make or fetch it again.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return a mapping of names to tensors, or say what was found in its place.

    Raises:
        MertError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise MertError(f"{path} holds {type(content).__name__}; expected a dictionary of tensors")
    wrong = [f"{name}: {type(value).__name__}" for name, value in content.items() if not isinstance(value, Tensor)]
    if wrong:
        raise MertError(f"{path} holds what is no tensor ({', '.join(wrong[:8])}); expected a dictionary of tensors")
    return dict(content)


def canonical_names(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the encoder's tensors under our names, and those of pre-training heads under fairseq's."""
    encoder: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        (heads if _HEADS.match(name) else encoder)[name] = tensor
    return encoder, heads


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return one line for each tensor that is missing, unknown or misshapen."""
    problems = [f"  missing: {name} {tuple(expected[name].shape)}" for name in expected if name not in found]
    problems += [f"  unknown: {name} {tuple(found[name].shape)}" for name in found if name not in expected]
    problems += [
        f"  misshapen: {name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    return problems


def load_weights(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model; those of pre-training heads are not looked at.

    Raises:
        MertError: some are missing, unknown or misshapen; nothing has been copied then.
    """
    copy_parameters(model, canonical_names(tensors)[0], source)


def refuse(problems: list[str], what: str, remedy: str) -> None:
    """List the tensors that do not fit, if there are any.

    Raises:
        MertError: there are.
    """
    if problems:
        raise MertError("\n".join([f"{what}, {len(problems)} tensor(s):", *problems, remedy]))


def copy_parameters(module: nn.Module, found: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a module's parameters of the same names.

    Raises:
        MertError: some are missing, unknown or misshapen; nothing has been copied then.
    """
    expected = dict(module.named_parameters())
    remedy = "Check that config.json and the weights are of one model."
    refuse(misfits(expected, found), f"{source} does not fit its configuration", remedy)
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(found[name])


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, atomically and byte-stable."""
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})


def save_pretrained(config: MertConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write an encoder's ``config.json`` and ``model.safetensors``; see ``MertModel.save_pretrained``.

    Args:
        config: shape of the encoder.
        tensors: parameters by name, without the CQT's fixed filters.
        folder: is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / CONFIG_NAME)
    save_tensors(tensors, folder / WEIGHTS_NAME)


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 of what training can start from: configuration, encoder and, if there are any, heads."""
    names = (CONFIG_NAME, WEIGHTS_NAME, LEGACY_NAME, HEADS_NAME)
    return sha256_json({name: sha256_file(folder / name) for name in names if (folder / name).is_file()})


def check_writable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a checkpoint.

    Raises:
        MertError: it is a file, or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise MertError(f"{folder} is a file; expected a new folder, or one with an older checkpoint to replace")
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OWN) if folder.exists() else []
    if others:
        raise MertError(
            f"{folder} would be replaced, but holds other things ({', '.join(others[:5])}); give a new folder"
        )
