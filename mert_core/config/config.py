"""The whole of ``params.yaml``: its sections, the runs and teachers that it names, how it is read and described.

A run is a base and a few changed lines. Sections within it (``model``, ``weights``, ``health``) are changed key by key;
lists are replaced; a ``model`` that names a preset begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from mert_core.config.data import (
    CorpusConfig,
    DatasetsConfig,
    PiecesConfig,
    ProbeSetConfig,
    StorageConfig,
    TargetsConfig,
)
from mert_core.config.probe import ProbeConfig, SweepConfig
from mert_core.config.run import PretrainConfig
from mert_core.config.section import Count, Name, Positive, Section, Whole
from mert_core.errors import MertError

PUBLISHED = "published"
"""The base of a run that begins with the defaults in code, MERT-95M's recipe, in place of ``pretrain``."""
BASE = "pretrain"
RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
BASELINES = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds; no run may have their names."""


class ReportConfig(Section):
    """The report."""

    runs: list[Name] | None = None  # runs to show beside the baselines, in this order; None: all that are not heavy
    # teachers whose targets to show beside an excerpt; None: all of the pipeline, and those without a fit
    teachers: list[Name] | None = None
    example_seconds: Positive = 4.0  # length of the picture of true against predicted CQT


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None  # its address; None: SQLite under ``.mert/mlflow``
    experiment: Annotated[str, Field(min_length=1)] = "mert"


class CatalogConfig(Section):
    """The lineage catalog."""

    url: str | None = None  # SQLAlchemy URL, for example of a Postgres; None: SQLite under ``.mert``


class TeacherInstance(Section):
    """A teacher by a name of its own: a class of teachers and its settings, which the class checks."""

    kind: str
    settings: dict[str, Any] = {}  # what differs from its defaults


class Config(Section):
    """The whole of ``params.yaml``."""

    # seed from which corpus, teachers, pre-training and probes derive all their randomness; MERT's own
    seed: Whole = 1337
    # CPU threads of a stage, shared by its training workers; part of what makes outputs the same to the byte
    threads: Count = 2
    # Where probes embed: auto · cpu · cuda. A run has its own; teachers label on a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    corpus: CorpusConfig = CorpusConfig()
    probe_set: ProbeSetConfig = ProbeSetConfig()
    pieces: PiecesConfig = PiecesConfig()
    # settings by instance; ``class`` names the class where it is not the instance's own name
    teachers: dict[Name, dict[str, Any] | None] = {}
    targets: TargetsConfig = TargetsConfig()
    pretrain: dict[str, Any] = {}  # what all runs share
    # changed lines by run; ``base`` names another run, or `PUBLISHED`, in place of ``pretrain``
    runs: dict[Name, dict[str, Any] | None] = {}
    heavy: list[Name] = []  # runs that a bare ``dvc repro`` leaves out
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
            "probe.baseline_run": [self.probe.baseline_run],
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

    def worker_threads(self, run: PretrainConfig) -> int:
        """Return the threads of one training worker: a run's workers share ``threads``, each has at least one."""
        return max(1, self.threads // max(1, run.workers))

    def run(self, name: str) -> PretrainConfig:
        """Return the parameters of a named run: the base with the run's changed lines.

        Raises:
            MertError: no such run, or its changes make an impossible whole.
        """
        tree: dict[str, Any] = {}
        for layer in reversed(self.bases(name)):
            changes = self.pretrain if layer == BASE else self.runs.get(layer) or {}
            for key, value in changes.items():
                within = isinstance(value, Mapping) and isinstance(tree.get(key), Mapping) and "preset" not in value
                tree[key] = {**tree[key], **value} if within else value
        tree.pop("base", None)
        try:
            run = PretrainConfig.model_validate({"seed": self.seed, **tree})
        except ValidationError as error:
            raise MertError(explain(error, f"runs.{name}")) from error
        return run if run.seed is not None else run.model_copy(update={"seed": self.seed})

    def teacher(self, name: str) -> TeacherInstance:
        """Return a teacher's class and settings; a name that is not in ``teachers`` is a class with its defaults."""
        settings = dict(self.teachers.get(name) or {})
        return TeacherInstance(kind=settings.pop("class", name), settings=settings)


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check ``params.yaml``.

    Args:
        path: the YAML file; what it leaves out has its default.
        overrides: assignments ``section.key=value``; values are YAML.

    Raises:
        MertError: unreadable file, unknown key or impossible value; the message names each key.
    """
    tree = read_params(path)
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
    tree, changed = read_params(path), dict[str, Any]()
    for assignment in overrides:
        _override(tree, assignment)
        _override(changed, assignment)
    # Where a value may come from, nearest first: a name, a tree, and where in it the resolved tree begins
    layers: list[tuple[str, dict[str, Any], list[str]]]
    if run is None:
        resolved: BaseModel = config
        layers = [("command line", changed, []), (path.name, tree, [])]
    else:
        resolved, layers = config.run(run), []
        for name in config.bases(run):
            place = [BASE] if name == BASE else ["runs", name]
            layers += [("command line", changed, place), (".".join(place), tree, place)]
        layers.append(("seed of all stages", {"seed": config.seed}, []))

    def rows(section: Mapping[str, Any], above: list[str]) -> Iterator[tuple[str, str]]:
        for key, value in section.items():
            keys, indent = [*above, key], "  " * len(above)
            if isinstance(value, Mapping) and value:
                yield f"{indent}{key}:", ""
                yield from rows(value, keys)
                continue
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip()
            source = next((name for name, tree, place in layers if has_key(tree, [*place, *keys])), "default")
            yield f"{indent}{key}: {text.removesuffix('...').strip()}", source

    lines = list(rows(resolved.model_dump(mode="json"), []))
    width = min(60, max(len(text) for text, source in lines if source))
    return "\n".join(f"{text:{width}}  # {source}" if source else text for text, source in lines)


def read_params(path: Path) -> dict[str, Any]:
    """Read what stands in ``params.yaml``, as plain data.

    Raises:
        MertError: unreadable, or no mapping.
    """
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


def has_key(tree: Any, keys: list[str]) -> bool:
    """Tell whether a tree of mappings has a value under keys, one below the other."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def explain(error: ValidationError, where: str) -> str:
    """Return what pydantic found wrong, one line per key."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(the whole)"
        found = "" if item["type"] in {"missing", "value_error"} else f" (found {item['input']!r})"
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"  {key}: {message}{found}")
    return f"{where} has {len(lines)} error(s):\n" + "\n".join(lines)
