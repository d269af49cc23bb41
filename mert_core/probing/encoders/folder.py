"""Folders of weights: what their configuration says of model type, sample rate and normalization."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mert_core.errors import MertError
from mert_core.files import sha256_file, sha256_json

_DEFAULT_RATES = {"mert_model": 24000}
_PUBLISHED_RATE = 16000  # of HuBERT and its kin, where no file says another


@dataclass(frozen=True)
class ModelFolder:
    """A folder with ``config.json``, weights and perhaps ``preprocessor_config.json``.

    Attributes:
        path: the folder.
        model_type: architecture as ``config.json`` calls it.
        rate: sample rate of the model's input in hertz.
        normalize: whether it wants each waveform at mean 0 and variance 1; None where no file says so.
    """

    path: Path
    model_type: str
    rate: int
    normalize: bool | None

    def content_hash(self) -> str:
        """Return the SHA-256 of configuration and weights."""
        names = [path.name for kind in ("*.json", "*.safetensors", "*.bin") for path in self.path.glob(kind)]
        return sha256_json({name: sha256_file(self.path / name) for name in sorted(names)})


def read_model_folder(folder: Path) -> ModelFolder:
    """Read what a folder says.

    Raises:
        MertError: no such folder, or no ``config.json`` with a model type in it.
    """
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
    rate = rate or _DEFAULT_RATES.get(model_type, _PUBLISHED_RATE)
    if not isinstance(rate, int) or not 1000 <= rate <= 200_000:
        raise MertError(f"{folder} says a sample rate of {rate!r}; expected hertz, such as 16000")
    normalize = preprocessor.get("do_normalize")
    return ModelFolder(folder, model_type, rate, None if normalize is None else bool(normalize))


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
