"""A stage's own record: what it made, from what, under which parameters. The catalog is built from these alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mert_core.errors import MertError
from mert_core.files import sha256_file, sha256_json, write_json

RECORD_NAME = "record.json"


@dataclass(frozen=True)
class Record:
    """One stage's record. Holds nothing volatile: no time, host, run id or absolute path.

    ``inputs`` maps a role (``corpus``, ``teacher``, ``targets``, ``checkpoint``, ``probe_set``) to that
    input's record id; ``files`` maps relative paths to SHA-256; ``facts`` are figures worth querying.
    ``id`` is the SHA-256 of everything else.
    """

    stage: str
    kind: str
    run: str | None
    inputs: dict[str, str]
    params: dict[str, Any]
    files: dict[str, str]
    facts: dict[str, Any]
    id: str


def write_record(
    folder: Path,
    *,
    stage: str,
    kind: str,
    run: str | None = None,
    inputs: dict[str, str],
    params: dict[str, Any],
    facts: dict[str, Any],
    known: Mapping[str, str] | None = None,
) -> Record:
    """Hash every file of ``folder`` and write its ``record.json``; call it last, before the folder is final.

    ``known`` gives the SHA-256 of files that were taken over as they are, by relative path: they are not read.
    """
    known = known or {}
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    files = {
        name: known.get(name) or sha256_file(path)
        for name, path in paths.items()
        if path.is_file() and path.name != RECORD_NAME
    }
    body: dict[str, Any] = {"stage": stage, "kind": kind, "run": run, "inputs": inputs, "params": params}
    body |= {"files": files, "facts": facts}
    record = Record(**body, id=sha256_json(body))
    write_json(folder / RECORD_NAME, asdict(record))
    return record


def read_record(folder: Path) -> Record:
    """Read a stage's record.

    Raises:
        MertError: the folder has no readable record.
    """
    path = folder / RECORD_NAME
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MertError(
            f"{path} is missing: the stage that makes {folder.name!r} has not run here. "
            "Run `dvc repro` (or `dvc pull`)."
        ) from None
    except (json.JSONDecodeError, TypeError) as error:
        raise MertError(f"{path} is not a stage record ({error}). Remove the folder and run `dvc repro`.") from error
