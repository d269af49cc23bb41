"""The DAG that ``params.yaml`` describes, and ``dvc.yaml`` and ``heavy/dvc.yaml`` rendered from it.

DVC interpolates values, not lists, so what varies in length (the targets that a run reads, the runs that the report
shows) is written out here. Each stage names its data, the keys of ``params.yaml`` that it uses, the classes whose
defaults stand for the keys that are not there, and the code that it imports.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from mert_core.config import BASELINES, RANDOM_WEIGHTS, Config
from mert_core.config.config import BASE, PUBLISHED, ReportConfig, has_key, read_params
from mert_core.config.data import CorpusConfig, DatasetsConfig, GateConfig, PiecesConfig, ProbeSetConfig
from mert_core.config.probe import ProbeConfig
from mert_core.config.run import PretrainConfig
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.experiments.rendered import HEAVY_NAME, OUTDATED, PIPELINE_NAME, STAMP, source_hash, stage_name
from mert_core.files import write_text
from mert_core.paths import Layout
from mert_core.teachers.registry import configured_teacher, shown_teachers, teacher_class

_WIDTH = 120
# Parameters reach a stage as values, which DVC reads out of `params.yaml` and out of these classes' bodies.
VALUES_NOT_CODE = "mert_core.config"
# A folder is named whole where the stage imports at least this share of its files; else its files are.
_WHOLE_FOLDER = 1 / 2


@dataclass(frozen=True)
class Stage:
    """A stage of the DAG.

    Attributes:
        name: name in DVC.
        command: shell command.
        data: files and folders that it reads.
        modules: modules whose import closure is its code.
        keys: keys of ``params.yaml``; those that the file does not have are left out.
        sections: classes whose defaults it depends on.
        out: folder that it makes.
        persist: its output stays while it runs, because it takes over what is still true.
        metrics: metrics file that it writes.
    """

    name: str
    command: str
    data: list[str]
    modules: list[str]
    keys: list[str]
    sections: list[type[BaseModel]]
    out: str
    persist: bool = False
    metrics: str | None = None


@dataclass
class Dag:
    """The stages of a bare ``dvc repro`` and the heavy ones, by name and in order."""

    pipeline: dict[str, Stage] = field(default_factory=dict)
    heavy: dict[str, Stage] = field(default_factory=dict)


def plan_of(config: Config) -> Dag:
    """Return the DAG.

    Raises:
        MertError: an unknown teacher, or teachers and students that are fitted on each other in a circle.
    """
    plan = Dag()

    def add(stage: Stage, heavy: bool = False) -> None:
        if stage.name not in plan.pipeline:
            (plan.heavy if heavy else plan.pipeline).setdefault(stage.name, stage)

    def add_teacher(name: str, heavy: bool, above: tuple[str, ...], stored: bool) -> None:
        above = _below(above, "teacher", name)
        teacher = configured_teacher(config, name)
        if teacher.run is not None:
            add_run(teacher.run, heavy, above)
        if teacher.needs != "nothing":
            add(_teacher(config, name), heavy)
        if stored:
            add(_targets(config, name), heavy)

    def add_run(run: str, heavy: bool, above: tuple[str, ...] = ()) -> None:
        above = _below(above, "run", run)
        for term in config.run(run).teachers:
            if term.weight:
                add_teacher(term.teacher, heavy, above, term.targets == "stored")
        add(_pretrain(config, run), heavy)

    add(
        Stage(
            "corpus",
            "mert corpus",
            data=[],
            modules=["mert_core.corpus.stage"],
            keys=["seed", "threads", "corpus", "pieces"],
            sections=[Config, CorpusConfig, PiecesConfig],
            out="data/corpus",
            persist=True,
        )
    )
    add(
        Stage(
            "probe_set",
            "mert probe-set",
            data=[],
            modules=["mert_core.corpus.stage"],
            keys=["seed", "threads", "probe_set", "pieces", "corpus.shard_megabytes"],
            sections=[Config, ProbeSetConfig, PiecesConfig, CorpusConfig],
            out="data/probe_set",
        )
    )
    for run in config.pipeline_runs:
        add_run(run, heavy=False)
    for name in shown_teachers(config):
        if teacher_class(config.teacher(name).kind).needs != "nothing":
            add_teacher(name, False, (), stored=True)
    for run in [*config.pipeline_runs, *BASELINES]:
        add(_probe(config, run))
    add(_report(config))
    for run in config.heavy:
        add_run(run, heavy=True)
        add(_probe(config, run), heavy=True)
    return plan


def _below(above: tuple[str, ...], kind: str, name: str) -> tuple[str, ...]:
    """Return the way down to a teacher or run."""
    if f"{kind} {name}" in above:
        way = " → ".join(step.rpartition(" ")[2] for step in (*above, name))
        raise MertError(f"params.yaml fits teachers and students on each other: {way}")
    return (*above, f"{kind} {name}")


def _teacher(config: Config, name: str) -> Stage:
    teacher = configured_teacher(config, name)
    data = [] if teacher.needs == "weights" else ["data/corpus"]
    if teacher.run is not None:
        data.append(f"data/pretrain/{teacher.run}")
    return Stage(
        stage_name("teachers", name),
        f"mert teachers fit {name}",
        data=[*data, *teacher.files],
        modules=["mert_core.teachers.stage", type(teacher).__module__],
        keys=["seed", "threads", f"teachers.{name}"],
        sections=[Config],
        out=f"data/teachers/{name}",
        persist=True,
    )


def _targets(config: Config, name: str) -> Stage:
    teacher = configured_teacher(config, name)
    fitted = teacher.needs != "nothing"
    return Stage(
        stage_name("targets", name),
        f"mert targets {name}",
        data=["data/corpus", f"data/teachers/{name}"] if fitted else ["data/corpus"],
        modules=["mert_core.targets.stage", type(teacher).__module__],
        keys=["targets.gate"] if fitted else ["targets.gate", f"teachers.{name}"],
        sections=[GateConfig],
        out=f"data/targets/{name}",
        persist=True,
    )


def _pretrain(config: Config, run: str) -> Stage:
    data, keys, modules = ["data/corpus"], _run_keys(config, run), ["mert_core.training.stage"]
    for term in config.run(run).teachers:
        if not term.weight:
            continue
        if term.targets == "stored":
            data.append(f"data/targets/{term.teacher}")
            continue
        teacher = configured_teacher(config, term.teacher)
        modules.append(type(teacher).__module__)
        if teacher.needs == "nothing":
            keys.append(f"teachers.{term.teacher}")
        else:
            data.append(f"data/teachers/{term.teacher}")
    return Stage(
        stage_name("pretrain", run),
        f"mert pretrain --run {run}",
        data=data,
        modules=modules,
        keys=["seed", "threads", *keys],
        sections=[Config, PretrainConfig],
        out=f"data/pretrain/{run}",
    )


def _run_keys(config: Config, run: str) -> list[str]:
    return [name if name == BASE else f"runs.{name}" for name in config.bases(run) if name != PUBLISHED]


def _probe(config: Config, run: str) -> Stage:
    data, keys = ["data/probe_set"], ["seed", "threads", "device", "probe", "datasets"]
    sections: list[type[BaseModel]] = [Config]
    if run == RANDOM_WEIGHTS:
        keys += _run_keys(config, config.probe.baseline_run)
        sections.append(PretrainConfig)
    elif run not in BASELINES:
        data.append(f"data/pretrain/{run}")
    return Stage(
        stage_name("probe", run),
        f"mert probe --run {run}",
        data=data,
        modules=["mert_core.probing.stage"],
        keys=keys,
        sections=[*sections, ProbeConfig, DatasetsConfig],
        out=f"data/probe/{run}",
    )


def _report(config: Config) -> Stage:
    teachers = [configured_teacher(config, name) for name in shown_teachers(config)]
    online = [type(teacher).__module__ for teacher in teachers if teacher.needs == "nothing"]
    return Stage(
        "report",
        "mert report",
        data=[
            "data/corpus",
            *(f"data/targets/{teacher.instance}" for teacher in teachers if teacher.needs != "nothing"),
            *(f"data/pretrain/{run}" for run in config.shown_runs),
            *(f"data/probe/{run}" for run in (*config.shown_runs, *BASELINES)),
        ],
        modules=["mert_core.report.stage", *online],
        keys=["seed", "report"],
        sections=[Config, ReportConfig],
        out="report",
        metrics="metrics.json",
    )


def _plots(config: Config) -> list[dict[str, Any]]:
    """Return DVC's plots: a cross-entropy for each teacher of codes, an error for each of a spectrum."""
    runs_of: dict[str, list[str]] = {}
    for run in config.shown_runs:
        for term in config.run(run).teachers:
            if term.weight:
                runs_of.setdefault(term.teacher, []).append(run)
    plots = []
    for name, runs in runs_of.items():
        codes = isinstance(configured_teacher(config, name).kind, Codes)
        title = "cross-entropy, summed over codebooks" if codes else "mean squared error"
        curves: dict[str, Any] = {}
        for run in runs:
            curves[f"report/plots/{run}/train.csv"] = name
            curves[f"report/plots/{run}/valid.csv"] = [name, f"{name}_unigram"] if codes else name
        plots.append({name: {"title": f"{name}: {title}", "x": "step", "y": curves}})
    return plots


def render(config: Config, layout: Layout) -> dict[Path, str | None]:
    """Return the rendered files by path; None where there is nothing to render, and no file belongs.

    Raises:
        MertError: as `plan_of`.
    """
    plan, graph, file = plan_of(config), ImportGraph(layout.root), read_params(layout.params)
    stamp = f"{STAMP}{source_hash(config, layout)}\n"
    head = "# Rendered by `mert plan` from params.yaml; edit that, not this.\n"
    pipeline = head + stamp + "stages:\n" + "\n".join(_stage(stage, graph, file) for stage in plan.pipeline.values())
    if plots := _plots(config):
        pipeline += "\nplots:\n" + textwrap.indent(_yaml(plots), "  ")
    heavy = None
    if plan.heavy:
        about = "# Runs too big for a laptop, which a bare `dvc repro` leaves out.\n"
        stages = (_stage(stage, graph, file, folder="..") for stage in plan.heavy.values())
        heavy = head + about + "stages:\n" + "\n".join(stages)
    return {layout.root / PIPELINE_NAME: pipeline, layout.root / HEAVY_NAME: heavy}


def write_plan(config: Config, layout: Layout) -> list[str]:
    """Write the rendered files, and return what changed, a line each."""
    changes = []
    for path, text in render(config, layout).items():
        name = path.relative_to(layout.root).as_posix()
        if text is None:
            if path.exists():
                path.unlink()
                changes.append(f"{name}: removed")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
            changes.append(f"{name}: {text.count(chr(10) + '    cmd: ')} stages")
    return changes


def check_plan(config: Config, layout: Layout) -> None:
    """Compare the rendered files with what would be rendered now.

    Raises:
        MertError: they differ.
    """
    for path, text in render(config, layout).items():
        if (path.read_text(encoding="utf-8") if path.exists() else None) != text:
            raise MertError(f"{OUTDATED} ({path.relative_to(layout.root)} differs)")


def _stage(stage: Stage, graph: ImportGraph, file: dict[str, Any], folder: str | None = None) -> str:
    code = graph.paths(stage.modules)
    params: list[Any] = [key for key in stage.keys if has_key(file, key.split("."))]
    defaults: dict[str, list[str]] = {}
    for section in stage.sections:
        for path, name in _classes(section):
            if name not in defaults.setdefault(path, []):
                defaults[path].append(name)
    params += [{path: names} for path, names in sorted(defaults.items())]
    lines = [f"  {stage.name}:"]
    if folder is not None:
        lines.append(f"    wdir: {folder}")
    lines.append(f"    cmd: {stage.command}")
    lines += _flow("deps", [*code, *stage.data])
    lines += _flow("params", params)
    lines += _flow("outs", [{stage.out: {"persist": True}} if stage.persist else stage.out])
    if stage.metrics is not None:
        lines += _flow("metrics", [{stage.metrics: {"cache": False}}])
    return "\n".join(lines) + "\n"


def _classes(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield file and name of a section's class, its parents and its inner sections; of `Config` its own alone."""
    for parent in section.__mro__:
        if parent.__module__.startswith("mert_core.config") and parent.__name__ != "Section":
            yield parent.__module__.replace(".", "/") + ".py", parent.__name__
    if section is Config:
        return
    for one in section.model_fields.values():
        for inner in (one.annotation, *get_args(one.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _classes(inner)


def _flow(key: str, items: list[Any]) -> list[str]:
    """Return a list in YAML's flow style, wrapped."""
    text = ", ".join(_yaml(item, flow=True) for item in items)
    one = f"    {key}: [{text}]"
    if len(one) <= _WIDTH:
        return [one]
    wrapped = textwrap.wrap(text, _WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return [f"    {key}: [", *(f"      {line}" for line in wrapped), "    ]"]


def _yaml(value: Any, flow: bool = False) -> str:
    text = yaml.safe_dump(
        value,
        default_flow_style=True if flow else None,
        sort_keys=False,
        allow_unicode=True,
        width=10_000 if flow else 110,
    )
    return text.removesuffix("...\n").strip() if flow else text


class ImportGraph:
    """The imports of a package's modules, read from their source; what is imported for types alone does not count.

    Args:
        root: folder that holds the package ``mert_core``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths = {
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
            for path in sorted((root / "mert_core").rglob("*.py"))
        }
        self._direct = cache(self._read)

    def closure(self, modules: Iterable[str]) -> set[str]:
        """Return the modules that are imported when these run, at the top or within functions, themselves included.

        A package's ``__init__`` runs when one of its modules is imported; the package ``mert_core`` itself only hands
        out names, and counts for nothing.
        """
        reached: set[str] = set()
        waiting = list(modules)
        while waiting:
            module = waiting.pop()
            if module in reached or module == "mert_core" or module.startswith(VALUES_NOT_CODE):
                continue
            reached.add(module)
            waiting += [*self._direct(module), *self._packages(module)]
        return reached

    def paths(self, modules: Iterable[str]) -> list[str]:
        """Return the files and folders of a closure, relative to the root, in the order of their names."""
        files = {self._paths[module] for module in self.closure(modules)}
        return self._folded(self._root / "mert_core", files, top=True)

    def _packages(self, module: str) -> list[str]:
        """Return the packages above a module whose ``__init__`` holds more than a docstring."""
        parts = module.split(".")
        packages = [".".join(parts[:depth]) for depth in range(2, len(parts))]
        bodies = {name: ast.parse(self._paths[name].read_text(encoding="utf-8")).body for name in packages}
        return [name for name, body in bodies.items() if any(not isinstance(node, ast.Expr) for node in body)]

    def _read(self, module: str) -> set[str]:
        names: set[str] = set()
        waiting: list[ast.AST] = [ast.parse(self._paths[module].read_text(encoding="utf-8"))]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                continue  # for types alone
            waiting += ast.iter_child_nodes(node)
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return names & self._paths.keys()

    def _folded(self, folder: Path, files: set[Path], top: bool = False) -> list[str]:
        inside = {path for path in files if folder in path.parents}
        if not inside:
            return []
        everything = [path for path in self._paths.values() if folder in path.parents]
        if not top and len(inside) >= _WHOLE_FOLDER * len(everything):
            return [folder.relative_to(self._root).as_posix()]
        named = [path.relative_to(self._root).as_posix() for path in inside if path.parent == folder]
        for child in sorted({path for path in folder.iterdir() if path.is_dir()}):
            named += self._folded(child, files)
        return sorted(named)
