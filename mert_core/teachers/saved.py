"""Fitted teachers on disk: settings as JSON, everything that was learned as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.base import Teacher
from mert_core.teachers.registry import new_teacher

CARD_NAME = "teacher.json"
WEIGHTS_NAME = "teacher.safetensors"


def save_teacher(folder: Path, teacher: Teacher) -> None:
    """Write ``teacher.json`` and ``teacher.safetensors``, byte-stable."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in teacher.state_dict().items()}
    with atomic_path(folder / WEIGHTS_NAME) as path:
        save_file(state, path)
    write_json(folder / CARD_NAME, {"name": teacher.name, "settings": teacher.kept_settings()})


def load_teacher(folder: Path) -> Teacher:
    """Load what `save_teacher` wrote, frozen.

    Raises:
        MertError: a file is missing, or weights and settings do not fit together.
    """
    again = f"mert teachers fit {folder.name}"
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        teacher = new_teacher(card["name"], card["settings"])
        teacher.load_state_dict(load_file(folder / WEIGHTS_NAME))
        return teacher.freeze()
    except FileNotFoundError as error:
        raise MertError(f"{error.filename or folder} is missing: there is no teacher here. Run `{again}`.") from error
    except (KeyError, TypeError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise MertError(f"{folder} does not hold a teacher ({error}). Remove it and run `{again}`.") from error
