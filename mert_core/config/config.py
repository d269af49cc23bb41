"""The whole of ``params.yaml``: its sections, and the runs and teachers that it names.

A run is a base and a few changed lines. Sections within it (``model``, ``weights``, ``health``) are changed key by key;
lists are replaced; a ``model`` that names a preset begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mert_core.config.corpus import CorpusConfig, DatasetsConfig, PiecesConfig, ProbeSetConfig, StorageConfig
from mert_core.config.probe import ProbeConfig, SweepConfig
from mert_core.config.run import PretrainConfig
from mert_core.config.section import Count, Name, Positive, Section, Whole
from mert_core.config.targets import TargetsConfig
from mert_core.errors import MertError

PUBLISHED = "published"
"""The base of a run that begins with the defaults in code, MERT-95M's recipe, in place of ``pretrain``."""
BASE = "pretrain"
RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
BASELINES = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds; no run may have their names."""


class ReportConfig(Section):
    """The report.

    Attributes:
        runs: runs to show beside the baselines, in this order; None: all that are not heavy.
        teachers: teachers whose targets to show beside an excerpt; None: all of the pipeline, and those without a fit.
        example_seconds: length of the picture of true against predicted CQT.
    """

    runs: list[Name] | None = None
    teachers: list[Name] | None = None
    example_seconds: Positive = 4.0


class TrackingConfig(Section):
    """MLflow.

    Attributes:
        uri: its address; None: SQLite under ``.mert/mlflow``.
        experiment: name of the experiment.
    """

    uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "mert"


class CatalogConfig(Section):
    """The lineage catalog.

    Attributes:
        url: SQLAlchemy URL, for example of a Postgres; None: SQLite under ``.mert``.
    """

    url: str | None = None


class TeacherInstance(Section):
    """A teacher by a name of its own: a class of teachers and its settings, which the class checks.

    Attributes:
        kind: name of the class.
        settings: what differs from its defaults.
    """

    kind: str
    settings: dict[str, Any] = {}


class Config(Section):
    """The whole of ``params.yaml``.

    Attributes:
        seed: seed from which corpus, teachers, pre-training and probes derive all their randomness; MERT's own.
        threads: CPU threads of a stage, shared by its training workers; part of what makes outputs the same to the
            byte.
        device: where probes embed: auto · cpu · cuda. A run has its own; teachers label on a GPU where there is one.
        teachers: settings by instance; ``class`` names the class where it is not the instance's own name.
        pretrain: what all runs share.
        runs: changed lines by run; ``base`` names another run, or `PUBLISHED`, in place of ``pretrain``.
        heavy: runs that a bare ``dvc repro`` leaves out.
    """

    seed: Whole = 1337
    threads: Count = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    corpus: CorpusConfig = CorpusConfig()
    probe_set: ProbeSetConfig = ProbeSetConfig()
    pieces: PiecesConfig = PiecesConfig()
    teachers: dict[Name, dict[str, Any] | None] = {}
    targets: TargetsConfig = TargetsConfig()
    pretrain: dict[str, Any] = {}
    runs: dict[Name, dict[str, Any] | None] = {}
    heavy: list[Name] = []
    datasets: DatasetsConfig = DatasetsConfig()
    probe: ProbeConfig = ProbeConfig()
    report: ReportConfig = ReportConfig()
    sweep: SweepConfig = SweepConfig()
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()
    catalog: CatalogConfig = CatalogConfig()

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Self:
        if reserved := sorted(set(self.runs) & {*BASELINES, PUBLISHED}):
            raise ValueError(f"runs names {', '.join(reserved)}, which means something else; choose another name")
        for names, section in ((self.runs, "runs"), (self.teachers, "teachers")):
            if len({name.lower() for name in names}) < len(names):
                raise ValueError(f"{section} has names that differ in upper and lower case alone: {', '.join(names)}")
        try:
            PretrainConfig.model_validate(self.pretrain)
        except ValidationError as error:
            raise MertError(explain(error, BASE)) from error
        for name in self.runs:
            self.run(name)
        named: dict[str, list[str]] = {
            "heavy": self.heavy,
            "report.runs": self.report.runs or [],
            "sweep.run": [self.sweep.run],
            "probe.floor_run": [self.probe.floor_run],
        }
        for key, wanted in named.items():
            if unknown := [name for name in wanted if name not in self.runs]:
                raise ValueError(f"{key} names {', '.join(unknown)}; runs has {', '.join(sorted(self.runs))}")
        return self

    @property
    def pipeline_runs(self) -> list[str]:
        """The runs of a bare ``dvc repro``, in the order of the file."""
        return [name for name in self.runs if name not in self.heavy]

    @property
    def shown_runs(self) -> list[str]:
        """The runs that the report shows."""
        return self.pipeline_runs if self.report.runs is None else list(self.report.runs)

    def bases(self, name: str) -> list[str]:
        """Return what a run is made of, changed lines first: its own name, its bases' and `BASE` or `PUBLISHED`.

        Raises:
            MertError: no such run, or a run that is its own base.
        """
        chain: list[str] = []
        while name not in (BASE, PUBLISHED):
            if name not in self.runs:
                raise MertError(f"no run is named {name!r}; params.yaml has {', '.join(sorted(self.runs)) or 'none'}")
            if name in chain:
                raise MertError(f"the bases of runs go round in a circle: {' → '.join([*chain, name])}")
            chain.append(name)
            name = (self.runs[name] or {}).get("base", BASE)
        return [*chain, name]

    def run(self, name: str) -> PretrainConfig:
        """Return the parameters of a named run: the base with the run's changed lines.

        Raises:
            MertError: no such run, or its changes make an impossible whole.
        """
        tree: dict[str, Any] = {}
        for layer in reversed(self.bases(name)):
            tree = merged(tree, {BASE: self.pretrain, PUBLISHED: {}}.get(layer, self.runs.get(layer)) or {})
        try:
            run = PretrainConfig.model_validate({"seed": self.seed, **tree})
        except ValidationError as error:
            raise MertError(explain(error, f"runs.{name}")) from error
        return run if run.seed is not None else run.model_copy(update={"seed": self.seed})

    def teacher(self, name: str) -> TeacherInstance:
        """Return a teacher's class and settings; a name that is not in ``teachers`` is a class with its defaults."""
        settings = dict(self.teachers.get(name) or {})
        return TeacherInstance(kind=settings.pop("class", name), settings=settings)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's tree with some lines changed; ``base`` names its base, and is no field."""
    tree = dict(base)
    for key, value in changes.items():
        if key == "base":
            continue
        within = isinstance(value, Mapping) and isinstance(tree.get(key), Mapping) and "preset" not in value
        tree[key] = {**tree[key], **value} if within else value
    return tree


def explain(error: ValidationError, where: str) -> str:
    """Return what pydantic found wrong, one line per key."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(the whole)"
        found = "" if item["type"] in {"missing", "value_error"} else f" (found {item['input']!r})"
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"  {key}: {message}{found}")
    return f"{where} has {len(lines)} error(s):\n" + "\n".join(lines)
