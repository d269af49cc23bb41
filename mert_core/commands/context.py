"""Parameters and folders of a command."""

from __future__ import annotations

import argparse
import sys
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
    from mert_core.experiments.rendered import outdated
    from mert_core.model.config import check_models

    layout = Layout.at(options.workdir) if options.workdir else Layout.at(find_root(Path.cwd()))
    config = load_config(options.params or layout.root / PARAMS_NAME, options.overrides)
    check_models(config)
    checked = not options.params and options.command != "plan"
    if checked and (line := outdated(load_config(layout.root / PARAMS_NAME), layout)):
        print(f"warning: {line}", file=sys.stderr)
    return config, layout
