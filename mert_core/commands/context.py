"""Parameters and folders of a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config

PARAMS_NAME = "params.yaml"


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``params.yaml``, or ``start`` itself."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / PARAMS_NAME).is_file()), start)


def context(options: argparse.Namespace) -> tuple[Config, Layout]:
    """Return the parameters, with what the command line changes, and the folders.

    Raises:
        MertError: the parameters cannot be read, or are wrong.
    """
    from mert_core.config import load_config

    layout = Layout.at(options.workdir) if options.workdir else Layout.at(find_root(Path.cwd()))
    return load_config(options.params or layout.root / PARAMS_NAME, options.overrides), layout
