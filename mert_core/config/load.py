"""Reading ``params.yaml`` with what the command line changes, and telling where each resolved value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mert_core.config.config import BASE, Config, explain
from mert_core.errors import MertError


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check ``params.yaml``.

    Args:
        path: the YAML file; what it leaves out has its default.
        overrides: assignments ``section.key=value``; values are YAML.

    Raises:
        MertError: unreadable file, unknown key or impossible value; the message names each key.
    """
    tree = _read(path)
    for assignment in overrides or []:
        _override(tree, assignment)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MertError(explain(error, path.name)) from error


def describe_config(path: Path, overrides: list[str], run: str | None = None) -> str:
    """Return the resolved tree as YAML, each value with where it comes from.

    Args:
        path: the YAML file.
        overrides: assignments of the command line.
        run: a run to resolve; None: everything but the runs, of which only the changed lines are shown.

    Raises:
        MertError: as `load_config`, or no such run.
    """
    config = load_config(path, overrides)
    file = _read(path)
    changed = {assignment.partition("=")[0] for assignment in overrides}
    if run is None:
        layers = [("", path.name, file)]
        resolved: BaseModel = config
    else:
        trees = {BASE: file.get(BASE), **(file.get("runs") or {})}
        names = config.bases(run)
        places = [BASE if name == BASE else f"runs.{name}" for name in names]
        layers = [(f"{place}.", place, trees.get(name) or {}) for place, name in zip(places, names, strict=True)]
        resolved = config.run(run)
    lines = []
    for keys, value in _leaves(resolved.model_dump(mode="json")):
        dotted = ".".join(keys)
        if any(prefix + dotted in changed or _begins(prefix + dotted, changed) for prefix, _, _ in layers):
            source = "command line"
        else:
            source = next((place for _, place, tree in layers if _holds(tree, keys)), "default")
            if run is not None and keys == ("seed",) and source == "default":
                source = "seed of all stages"
        lines.append((keys, value, source))
    return _as_yaml(lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(f"cannot read the parameters {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise MertError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise MertError(f"{path} holds {type(tree).__name__}; expected sections (corpus, teachers, …)")
    return tree


def _override(tree: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator:
        raise MertError(f"-S {assignment!r}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for part in parents:
        below = node.setdefault(part, {})
        node[part] = node = {} if below is None else below
        if not isinstance(node, dict):
            raise MertError(f"-S {assignment!r}: {part!r} is a value, not a section")
    node[leaf] = yaml.safe_load(text)


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key)), value


def _holds(tree: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _begins(dotted: str, changed: set[str]) -> bool:
    return any(dotted.startswith(f"{key}.") for key in changed)


def _as_yaml(lines: list[tuple[tuple[str, ...], Any, str]]) -> str:
    """Return nested keys as indented YAML, one value a line with its source as a comment."""
    rows: list[tuple[str, str]] = []
    above: tuple[str, ...] = ()
    for keys, value, source in lines:
        shared = next((n for n, (old, new) in enumerate(zip(above, keys, strict=False)) if old != new), len(above))
        for depth in range(min(shared, len(keys) - 1), len(keys) - 1):
            rows.append((f"{'  ' * depth}{keys[depth]}:", ""))
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("\n...\n")
        rows.append((f"{'  ' * (len(keys) - 1)}{keys[-1]}: {text.strip()}", source))
        above = keys[:-1]
    width = min(60, max(len(text) for text, source in rows if source))
    return "\n".join(f"{text:{width}}  # {source}" if source else text for text, source in rows)
