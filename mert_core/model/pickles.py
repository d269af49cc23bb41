"""Reading other people's torch files: weights and plain data come through, nothing of theirs is ever run.

fairseq keeps its configuration, dictionaries and meters beside the weights, as objects of classes that are not
installed here. ``torch.load(weights_only=True)`` refuses such a file as a whole. Here every class of a known package is
replaced by ``Inert``, our own, which keeps what it is given and does nothing; still with ``weights_only=True``, so that
the file decides neither what is imported nor what is called.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from mert_core.errors import MertError

KNOWN_PACKAGES = {
    "argparse",
    "builtins",
    "collections",
    "enum",
    "examples",
    "fairseq",
    "fairseq_cli",
    "hydra",
    "mert_fairseq",
    "numpy",
    "omegaconf",
    "pathlib",
    "typing",
}
"""Packages whose classes fairseq checkpoints mention. A file that mentions others is refused."""

_HARMLESS_BUILTINS = {"bool", "dict", "float", "int", "list", "object", "set", "str", "tuple"}


class Inert:
    """Stands for an object of a foreign class: holds its state, behaves in no way.

    Attributes:
        arguments: what it was made with.
        state: what was restored into it, if anything was.
    """

    def __new__(cls, *arguments: Any) -> Inert:
        """Make one from whatever the file gives."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...] = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __hash__(self) -> int:
        return id(self)


def read_pickle(path: Path) -> Any:
    """Read a file of ``torch.save``; foreign objects in it become ``Inert``.

    Raises:
        MertError: no such file, it is damaged, or it mentions what no checkpoint needs.
    """
    try:
        foreign = _foreign_names(path)
        kinds = {name: type(name.rpartition(".")[2], (Inert,), {}) for name in foreign}
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


def _foreign_names(path: Path) -> list[str]:
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":  # before torch 1.6: no list of names can be had beforehand
            return []
    names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    refused = [name for name in names if not _is_known(name)]
    if refused:
        raise MertError(
            f"{path} mentions {', '.join(refused)}, which no checkpoint needs. It is not read. If you trust its maker, "
            "save its weights alone, as a dictionary of tensors, where it was made."
        )
    return names


def _is_known(name: str) -> bool:
    package, _, rest = name.partition(".")
    return package in KNOWN_PACKAGES and (package != "builtins" or rest in _HARMLESS_BUILTINS)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
