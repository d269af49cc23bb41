"""Reading ``params.yaml``, with what the command line changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mert_core.config.whole import Config, explain
from mert_core.errors import MertError


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check ``params.yaml``.

    Args:
        path: the YAML file.
        overrides: assignments ``section.key=value``; values are YAML.

    Raises:
        MertError: unreadable file, unknown key, missing key or impossible value; the message names each key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(f"cannot read the parameters {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise MertError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise MertError(f"{path} holds {type(tree).__name__}; expected sections (corpus, teachers, …)")
    for assignment in overrides or []:
        _override(tree, assignment)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MertError(explain(error, path.name)) from error


def _override(tree: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator:
        raise MertError(f"-S {assignment!r}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for part in parents:
        if not isinstance(node.get(part), dict):
            raise MertError(f"-S {assignment!r}: there is no section {part!r}")
        node = node[part]
    in_run = len(parents) == 2 and parents[0] == "runs"  # a run may add any field of `pretrain`
    if leaf not in node and not in_run:
        raise MertError(
            f"-S {assignment!r}: unknown key {key!r}; {'.'.join(parents) or 'the file'} has {', '.join(map(str, node))}"
        )
    node[leaf] = yaml.safe_load(text)
