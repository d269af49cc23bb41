"""All labelled data sets by name, and where each one lies."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.config import Config
from mert_core.datasets.base import Dataset, Survey
from mert_core.errors import MertError
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config
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
        made: Dataset = getattr(importlib.import_module(f"mert_core.datasets.{module}"), adapter)()
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


def survey_all(config: Config, layout: Layout, quick: bool, datasets: Mapping[str, Dataset] = DATASETS) -> int:
    """Print every data set's state, one block each.

    Args:
        config: says where they lie.
        layout: of the working directory.
        quick: count only; else published checksums are compared, which reads every file.
        datasets: by name.

    Returns:
        0, or 1 when files are damaged or a label file cannot be read; a missing set is no problem.
    """
    problems, complete = 0, 0
    for name, dataset in datasets.items():
        folder = folder_of(config, layout, name)
        try:
            survey = dataset.survey(folder, quick)
        except MertError as error:
            survey = Survey("incomplete", notes=(str(error),), damaged=1)
        problems += bool(survey.damaged)
        complete += survey.state == "complete"
        print("\n".join(_block(dataset, folder, survey)))
    print(f"{complete} of {len(datasets)} complete; " + (f"{problems} damaged" if problems else "none damaged"))
    return 1 if problems else 0


def _block(dataset: Dataset, folder: Path, survey: Survey) -> Iterator[str]:
    counts = ", ".join(f"{have:,} of {want:,} {what}" for what, (have, want) in survey.found.items())
    damaged = f"; {survey.damaged:,} damaged" if survey.damaged else ""
    yield f"{dataset.name:12}{survey.state}{f': {counts}' if counts else ''}{damaged}"
    lines = [("title", dataset.title), ("folder", str(folder)), *(("note", note) for note in survey.notes)]
    lines += [("questions", ", ".join(dataset.questions)), ("licence", dataset.licence), ("ask", dataset.source)]
    for topic, text in lines:
        yield f"  {topic:10}{text}"
