"""Parameters, folders and threads of a command."""

from __future__ import annotations

import argparse
import os
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


def set_threads(config: Config) -> None:
    """Set the threads of every pool; before torch is imported."""
    # Thread pools are sized when the libraries load: numpy's and torch's sums depend on the count.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(config.threads)
    # Threads that wait spin only briefly: where others use the cores too, long spinning made a step many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    import torch

    torch.set_num_threads(config.threads)
