"""The DAG that ``params.yaml`` describes, and ``dvc.yaml`` and ``heavy/dvc.yaml`` rendered from it.

DVC interpolates values, not lists, so what varies in length (the targets that a run reads, the runs that the report
shows) is written out here. Each stage names its data, the keys of ``params.yaml`` that it uses, the classes whose
defaults stand for the keys that are not there, and the code that it imports.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from mert_core.config import BASELINES, RANDOM_WEIGHTS, Config
from mert_core.config.config import BASE, PUBLISHED, ReportConfig
from mert_core.config.data import CorpusConfig, DatasetsConfig, GateConfig, PiecesConfig, ProbeSetConfig
from mert_core.config.probe import ProbeConfig
from mert_core.config.run import PretrainConfig
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.experiments.imports import ImportGraph
from mert_core.experiments.rendered import (
    HEAVY_NAME,
    OUTDATED,
    PIPELINE_NAME,
    STAMP,
    read_tree,
    source_hash,
    stage_name,
)
from mert_core.files import write_text
from mert_core.paths import Layout
from mert_core.teachers.registry import TEACHERS, configured_teacher, shown_teachers

_WIDTH = 120


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
        outs: folders that it makes.
        persist: its outputs stay while it runs, because it takes over what is still true.
        metrics: metrics file that it writes.
    """

    name: str
    command: str
    data: list[str]
    modules: list[str]
    keys: list[str]
    sections: list[type[BaseModel]]
    outs: list[str]
    persist: bool = False
    metrics: str | None = None


@dataclass
class Dag:
    """All stages, those of a bare ``dvc repro`` and the heavy ones, and the curves that ``dvc plots`` shows."""

    pipeline: list[Stage] = field(default_factory=list)
    heavy: list[Stage] = field(default_factory=list)
    plots: list[dict[str, Any]] = field(default_factory=list)


def plan_of(config: Config) -> Dag:
    """Return the DAG.

    Raises:
        MertError: an unknown teacher, or teachers and students that are fitted on each other in a circle.
    """
    plan, done = Dag(), set[str]()

    def add(stage: Stage, heavy: bool) -> None:
        if stage.name not in done:
            done.add(stage.name)
            (plan.heavy if heavy else plan.pipeline).append(stage)

    def add_teacher(name: str, heavy: bool, above: tuple[str, ...], stored: bool) -> None:
        if f"teacher {name}" in above:
            raise MertError(_circle((*above, name)))
        teacher = configured_teacher(config, name)
        if teacher.run is not None:
            add_run(teacher.run, heavy, (*above, f"teacher {name}"))
        if teacher.needs != "nothing":
            add(_teacher(config, name), heavy)
        if stored:
            add(_targets(config, name), heavy)

    def add_run(run: str, heavy: bool, above: tuple[str, ...] = ()) -> None:
        if f"run {run}" in above:
            raise MertError(_circle((*above, run)))
        for term in config.run(run).teachers:
            if term.weight:
                add_teacher(term.teacher, heavy, (*above, f"run {run}"), term.targets == "stored")
        add(_pretrain(config, run), heavy)

    add(_corpus(), heavy=False)
    add(_probe_set(), heavy=False)
    for run in config.pipeline_runs:
        add_run(run, heavy=False)
    for name in shown_teachers(config):
        if TEACHERS.find(config.teacher(name).kind).needs != "nothing":
            add_teacher(name, False, (), stored=True)
    for run in [*config.pipeline_runs, *BASELINES]:
        add(_probe(config, run), heavy=False)
    add(_report(config), heavy=False)
    for run in config.heavy:
        add_run(run, heavy=True)
        add(_probe(config, run), heavy=True)
    plan.plots = list(_plots(config))
    return plan


def _circle(names: tuple[str, ...]) -> str:
    way = " → ".join(name.rpartition(" ")[2] for name in names)
    return f"params.yaml fits teachers and students on each other: {way}"


def _corpus() -> Stage:
    return Stage(
        "corpus",
        "mert corpus",
        [],
        ["mert_core.corpus.stage"],
        ["seed", "threads", "corpus", "pieces"],
        [Config, CorpusConfig, PiecesConfig],
        ["data/corpus"],
        persist=True,
    )


def _probe_set() -> Stage:
    return Stage(
        "probe_set",
        "mert probe-set",
        [],
        ["mert_core.corpus.stage"],
        ["seed", "threads", "probe_set", "pieces", "corpus.shard_megabytes"],
        [Config, ProbeSetConfig, PiecesConfig, CorpusConfig],
        ["data/probe_set"],
    )


def _teacher(config: Config, name: str) -> Stage:
    teacher = configured_teacher(config, name)
    data = [] if teacher.needs == "weights" else ["data/corpus"]
    if teacher.run is not None:
        data.append(f"data/pretrain/{teacher.run}")
    data += teacher.files()
    return Stage(
        stage_name("teachers", name),
        f"mert teachers fit {name}",
        data,
        ["mert_core.teachers.stage", TEACHERS.module_of(teacher.name)],
        ["seed", "threads", f"teachers.{name}"],
        [Config],
        [f"data/teachers/{name}"],
        persist=True,
    )


def _targets(config: Config, name: str) -> Stage:
    teacher = configured_teacher(config, name)
    fitted = [f"data/teachers/{name}"] if teacher.needs != "nothing" else []
    return Stage(
        stage_name("targets", name),
        f"mert targets {name}",
        ["data/corpus", *fitted],
        ["mert_core.targets.stage", TEACHERS.module_of(teacher.name)],
        ["targets.gate", *([] if fitted else [f"teachers.{name}"])],
        [GateConfig],
        [f"data/targets/{name}"],
        persist=True,
    )


def _pretrain(config: Config, run: str) -> Stage:
    terms = [term for term in config.run(run).teachers if term.weight]
    data, keys, modules = ["data/corpus"], _run_keys(config, run), ["mert_core.training.stage"]
    for term in terms:
        teacher = configured_teacher(config, term.teacher)
        if term.targets == "stored":
            data.append(f"data/targets/{term.teacher}")
            continue
        modules.append(TEACHERS.module_of(teacher.name))
        if teacher.needs == "nothing":
            keys.append(f"teachers.{term.teacher}")
        else:
            data.append(f"data/teachers/{term.teacher}")
    return Stage(
        stage_name("pretrain", run),
        f"mert pretrain --run {run}",
        data,
        modules,
        ["seed", "threads", *keys],
        [Config, PretrainConfig],
        [f"data/pretrain/{run}"],
    )


def _run_keys(config: Config, run: str) -> list[str]:
    return [name if name == BASE else f"runs.{name}" for name in config.bases(run) if name != PUBLISHED]


def _probe(config: Config, run: str) -> Stage:
    data, keys = ["data/probe_set"], ["seed", "threads", "device", "probe", "datasets"]
    sections: list[type[BaseModel]] = [Config]
    if run == RANDOM_WEIGHTS:
        keys += _run_keys(config, config.probe.floor_run)
        sections.append(PretrainConfig)
    elif run not in BASELINES:
        data.append(f"data/pretrain/{run}")
    return Stage(
        stage_name("probe", run),
        f"mert probe --run {run}",
        data,
        ["mert_core.probing.stage"],
        keys,
        [*sections, ProbeConfig, DatasetsConfig],
        [f"data/probe/{run}"],
    )


def _report(config: Config) -> Stage:
    stored: list[str] = []
    asked: list[str] = []
    for name in shown_teachers(config):
        (asked if configured_teacher(config, name).needs == "nothing" else stored).append(name)
    data = [
        "data/corpus",
        *(f"data/targets/{name}" for name in stored),
        *(f"data/pretrain/{run}" for run in config.shown_runs),
        *(f"data/probe/{run}" for run in (*config.shown_runs, *BASELINES)),
    ]
    modules = ["mert_core.report.stage", *(TEACHERS.module_of(config.teacher(name).kind) for name in asked)]
    return Stage(
        "report",
        "mert report",
        data,
        modules,
        ["seed", "report"],
        [Config, ReportConfig],
        ["report"],
        metrics="metrics.json",
    )


def _plots(config: Config) -> Iterator[dict[str, Any]]:
    """Yield DVC's plots: a cross-entropy for each teacher of codes, an error for each of a spectrum."""
    runs_of: dict[str, list[str]] = {}
    for run in config.shown_runs:
        for term in config.run(run).teachers:
            if term.weight:
                runs_of.setdefault(term.teacher, []).append(run)
    for name, runs in runs_of.items():
        codes = isinstance(configured_teacher(config, name).kind, Codes)
        title = "cross-entropy, summed over codebooks" if codes else "mean squared error"
        curves: dict[str, Any] = {}
        for run in runs:
            curves[f"report/plots/{run}/train.csv"] = name
            curves[f"report/plots/{run}/valid.csv"] = [name, f"{name}_unigram"] if codes else name
        yield {name: {"title": f"{name}: {title}", "x": "step", "y": curves}}


def render(config: Config, layout: Layout) -> dict[Path, str | None]:
    """Return the rendered files by path; None where there is nothing to render, and no file belongs.

    Raises:
        MertError: as `plan_of`.
    """
    plan, graph = plan_of(config), ImportGraph(layout.root)
    file = read_tree(layout)
    stamp = f"{STAMP}{source_hash(config, layout)}\n"
    head = "# Rendered by `mert plan` from params.yaml; edit that, not this.\n"
    pipeline = head + stamp + "stages:\n" + "\n".join(_stage(stage, graph, file) for stage in plan.pipeline)
    if plan.plots:
        pipeline += "\nplots:\n" + textwrap.indent(_yaml(plan.plots), "  ")
    heavy = None
    if plan.heavy:
        about = "# Runs too big for a laptop, which a bare `dvc repro` leaves out.\n"
        heavy = head + about + "stages:\n"
        heavy += "\n".join(_stage(stage, graph, file, folder="..") for stage in plan.heavy)
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
    params: list[Any] = [key for key in stage.keys if _has(file, key)]
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
    outs = [{out: {"persist": True}} for out in stage.outs] if stage.persist else stage.outs
    lines += _flow("outs", outs)
    if stage.metrics is not None:
        lines += _flow("metrics", [{stage.metrics: {"cache": False}}])
    return "\n".join(lines) + "\n"


def _has(file: dict[str, Any], key: str) -> bool:
    node: Any = file
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


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
