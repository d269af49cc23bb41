"""All labelled public data sets by name, where each one lies, and what of it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mert_core.config import Config
from mert_core.datasets.base import Dataset, Survey
from mert_core.datasets.emo import Emomusic
from mert_core.datasets.giantsteps import GiantSteps
from mert_core.datasets.gtzan import Gtzan
from mert_core.datasets.jamendo import MtgJamendo
from mert_core.datasets.mtt import MagnaTagATune
from mert_core.datasets.musdb18 import Musdb18
from mert_core.datasets.nsynth import NSynth
from mert_core.datasets.vocalset import VocalSet
from mert_core.errors import MertError
from mert_core.paths import Layout

_ALL = MagnaTagATune(), GiantSteps(), Gtzan(), Emomusic(), NSynth(), VocalSet(), MtgJamendo(), Musdb18()
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}
"""Every data set by name. Each one's docstring and attributes say its layout, licence and citation."""


def folder_of(config: Config, layout: Layout, name: str) -> Path:
    """Return where a data set should lie: ``datasets.places``, or its name in ``datasets.folder``.

    Raises:
        MertError: no data set has that name, or one that ``datasets.places`` has.
    """
    for wanted, where in ((name, ""), *((key, "datasets.places: ") for key in config.datasets.places)):
        if wanted not in DATASETS:
            raise MertError(f"{where}no data set is named {wanted!r}; there are {', '.join(DATASETS)}")
    folder = config.datasets.places.get(name)
    return layout.root / (folder or Path(config.datasets.folder) / name)


def survey_all(config: Config, layout: Layout, quick: bool) -> Iterator[tuple[Survey, str]]:
    """Yield what of each data set is there, with a block of text that says so, one set after the other.

    A label file that cannot be read counts as damage.

    Args:
        config: parameters, which say where the sets lie.
        layout: paths of the working directory.
        quick: count files only; otherwise published checksums are compared, which reads every file.
    """
    for name, dataset in DATASETS.items():
        folder = folder_of(config, layout, name)
        try:
            survey = dataset.survey(folder, quick)
        except MertError as error:
            survey = Survey("incomplete", notes=(str(error),), damaged=1)
        yield survey, "\n".join(_block(dataset, folder, survey))


def _block(dataset: Dataset, folder: Path, survey: Survey) -> Iterator[str]:
    counts = ", ".join(f"{have:,} of {want:,} {what}" for what, (have, want) in survey.counts.items())
    damaged = f"; {survey.damaged:,} damaged" if survey.damaged else ""
    yield f"{dataset.name:12}{survey.state}{f': {counts}' if counts else ''}{damaged}"
    lines = [("title", dataset.title), ("folder", str(folder)), *(("note", note) for note in survey.notes)]
    lines += [("questions", ", ".join(dataset.questions)), ("licence", dataset.licence), ("ask", dataset.source)]
    for topic, text in lines:
        yield f"  {topic:10}{text}"
