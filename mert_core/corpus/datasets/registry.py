"""All labelled data sets by name, and where each one lies."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mert_core.config import Config
from mert_core.corpus.datasets.base import Dataset
from mert_core.errors import MertError
from mert_core.paths import Layout

_ADAPTERS = {
    "mtt": "mtt.MagnaTagATune",
    "giantsteps": "giantsteps.GiantSteps",
    "gtzan": "gtzan.Gtzan",
    "emo": "emo.Emomusic",
    "nsynth": "nsynth.NSynth",
    "vocalset": "vocalset.VocalSet",
    "mtg_jamendo": "jamendo.MtgJamendo",
    "musdb18": "musdb18.Musdb18",
}


class _Datasets(Mapping[str, Dataset]):
    """A dictionary whose adapters are imported when they are asked for."""

    def __getitem__(self, name: str) -> Dataset:
        module, _, adapter = _ADAPTERS[name].partition(".")
        made: Dataset = getattr(importlib.import_module(f"mert_core.corpus.datasets.{module}"), adapter)()
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(_ADAPTERS)

    def __len__(self) -> int:
        return len(_ADAPTERS)


DATASETS: Mapping[str, Dataset] = _Datasets()


def folder_of(config: Config, layout: Layout, name: str) -> Path:
    """Return where a data set should lie: ``datasets.places``, or its name in ``datasets.folder``.

    Raises:
        MertError: no data set has that name.
    """
    if name not in DATASETS:
        raise MertError(f"no data set is named {name!r}; there are {', '.join(DATASETS)}")
    place = {str(key): value for key, value in config.datasets.places.items()}.get(name)
    return layout.root / (place or Path(config.datasets.folder) / name)
