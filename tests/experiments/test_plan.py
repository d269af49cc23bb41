from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mert_core.cli import main
from mert_core.config import Config, load_config
from mert_core.errors import MertError
from mert_core.experiments.plan import ImportGraph, check_plan, plan_of, render, write_plan
from mert_core.experiments.rendered import command_of, outdated, stage_name
from mert_core.paths import Layout

BASE = """
pretrain: {model: {preset: mert-tiny}, warmup_steps: 1, teachers: [{teacher: cqt, targets: crop}]}
probe: {baseline_run: one}
sweep: {run: one}
report: {teachers: []}
"""


@pytest.fixture
def layout(tmp_path: Path, repository: Path) -> Layout:
    (tmp_path / "mert_core").symlink_to(repository / "mert_core")
    return Layout.at(tmp_path)


def planned(layout: Layout, tree: str) -> Config:
    layout.params.write_text(BASE + tree)
    return load_config(layout.params)


def stages(config: Config, layout: Layout, file: str = "dvc.yaml") -> dict:
    return yaml.safe_load(render(config, layout)[layout.root / file])["stages"]


def data(stage: dict) -> list[str]:
    return [dep for dep in stage["deps"] if not dep.startswith("mert_core")]


def test_a_second_iteration_is_two_runs_and_a_teacher_between_them(layout: Layout) -> None:
    teachers = "teachers: {hubert-1-kmeans: {class: student-kmeans, run: hubert-1, layer: 1}}\n"
    runs = """
runs:
  one: {}
  hubert-2: {teachers: [{teacher: hubert-1-kmeans}]}
  hubert-1: {teachers: [{teacher: mfcc-kmeans}], max_steps: 300}
"""
    config = planned(layout, teachers + runs)
    found = stages(config, layout)
    assert data(found["pretrain-one"]) == ["data/corpus"]
    assert data(found["teacher-mfcc-kmeans"]) == ["data/corpus"]
    assert data(found["pretrain-hubert-1"]) == ["data/corpus", "data/targets/mfcc-kmeans"]
    assert data(found["teacher-hubert-1-kmeans"]) == ["data/corpus", "data/pretrain/hubert-1"]
    assert data(found["targets-hubert-1-kmeans"]) == ["data/corpus", "data/teachers/hubert-1-kmeans"]
    assert data(found["pretrain-hubert-2"]) == ["data/corpus", "data/targets/hubert-1-kmeans"]
    assert data(found["probe-hubert-2"]) == ["data/probe_set", "data/pretrain/hubert-2"]
    shown = {f"data/{kind}/{run}" for kind in ("pretrain", "probe") for run in ("one", "hubert-1", "hubert-2")}
    assert shown <= set(data(found["report"]))
    assert "mert_core/model" in found["teacher-hubert-1-kmeans"]["deps"]
    assert "mert_core/model" not in found["teacher-mfcc-kmeans"]["deps"], "only a student's teacher needs the model"
    assert found["pretrain-hubert-1"]["params"][:2] == ["runs.hubert-1", "pretrain"]


def test_one_class_can_teach_twice(layout: Layout) -> None:
    teachers = "{mfcc-300: {class: mfcc-kmeans, clusters: 300}, mfcc-500: {class: mfcc-kmeans, clusters: 500}}"
    run = "{teachers: [{teacher: mfcc-300}, {teacher: mfcc-500, weight: 0.5}]}"
    config = planned(layout, f"teachers: {teachers}\nruns: {{one: {run}}}")
    found = stages(config, layout)
    assert data(found["pretrain-one"]) == ["data/corpus", "data/targets/mfcc-300", "data/targets/mfcc-500"]
    assert "teachers.mfcc-300" in found["teacher-mfcc-300"]["params"]
    assert "teachers.mfcc-300" not in found["teacher-mfcc-500"]["params"]


def test_heavy_runs_and_what_they_alone_need_are_in_a_file_of_their_own(layout: Layout) -> None:
    runs = "{one: {}, big: {base: published, teachers: [{teacher: rvqvae}]}}"
    config = planned(layout, f"runs: {runs}\nheavy: [big]")
    assert not any("big" in name or "rvqvae" in name for name in stages(config, layout))
    heavy = stages(config, layout, "heavy/dvc.yaml")
    assert list(heavy) == ["teacher-rvqvae", "targets-rvqvae", "pretrain-big", "probe-big"]
    assert all(stage["wdir"] == ".." for stage in heavy.values())
    assert "pretrain" not in heavy["pretrain-big"]["params"], "the published recipe does not begin with the demo's"
    assert write_plan(config, layout) and (layout.root / "heavy" / "dvc.yaml").exists()
    changed = planned(layout, "runs: {one: {}}")
    assert "heavy/dvc.yaml: removed" in write_plan(changed, layout)


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (
            "runs: {one: {teachers: [{teacher: k}]}}\nteachers: {k: {class: student-kmeans, run: one}}",
            "on each other: one → k → one",
        ),
        ("runs: {one: {teachers: [{teacher: cqtt}]}}", "no class of teachers is named 'cqtt'"),
        ("runs: {one: {}}\nteachers: {x: {class: mfcc-kmeans, clusterz: 3}}", "teachers.x has 1 error(s)"),
        ("runs: {one: {}}\nteachers: {k: {class: student-kmeans, run: two}}", "teachers.k.run is 'two'"),
        ("runs: {one: {}}\nteachers: {k: {class: student-kmeans}}", "give one of them"),
    ],
)
def test_what_cannot_be_is_named(layout: Layout, tree: str, named: str) -> None:
    from mert_core.teachers.registry import check_teachers

    config = planned(layout, tree)
    with pytest.raises(MertError) as raised:
        check_teachers(config)
        plan_of(config)
    assert named in str(raised.value)


def test_a_plan_that_is_older_than_the_parameters_is_said_in_one_line(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    config = planned(layout, "runs: {one: {}}")
    assert outdated(config, layout) is None, "no dvc.yaml, no plan"
    write_plan(config, layout)
    assert outdated(config, layout) is None and not write_plan(config, layout)
    same = planned(layout, "runs: {one: {max_steps: 5}}")
    assert outdated(same, layout) is None, "DVC itself follows values"
    more = planned(layout, "runs: {one: {}, two: {}}")
    assert "run `mert plan`" in str(outdated(more, layout))
    capsys.readouterr()
    assert main(["plan", "--check", "--workdir", str(layout.root)]) == 2
    assert "run `mert plan`" in capsys.readouterr().err
    assert main(["config", "--run", "two", "--workdir", str(layout.root)]) == 0
    assert capsys.readouterr().err.count("\n") == 1, "every command says it, in one line"
    assert main(["plan", "--workdir", str(layout.root)]) == 0
    check_plan(more, layout)


def test_the_committed_files_are_as_rendered(repository: Path, config: Config) -> None:
    check_plan(config, Layout.at(repository))


def test_dvc_takes_the_rendered_files(repository: Path) -> None:
    dvc = str(Path(sys.executable).parent / "dvc")
    for file in ("dvc.yaml", "heavy/dvc.yaml"):
        done = subprocess.run(
            [dvc, "stage", "list", "--name-only", file], cwd=repository, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("command", ["corpus", "probe-set", "teachers", "targets", "pretrain", "probe", "report"])
def test_a_stages_name_leads_back_to_its_command(command: str) -> None:
    assert command_of(stage_name(command, "a-b")) == (command, "a-b") or command in {"corpus", "probe-set", "report"}
    assert command_of(stage_name(command)) == (command, None)


ENTRIES = {
    "corpus": ["mert_core.corpus.stage"],
    "teacher-mfcc-kmeans": ["mert_core.teachers.stage", "mert_core.teachers.kmeans"],
    "targets-student-kmeans": ["mert_core.targets.stage", "mert_core.teachers.student_kmeans"],
    "pretrain-tiny": ["mert_core.training.stage", "mert_core.teachers.spectra"],
    "probe-tiny": ["mert_core.probing.stage"],
    "report": ["mert_core.report.stage", "mert_core.teachers.spectra"],
}


def written(folder: Path, files: dict[str, str]) -> ImportGraph:
    for name, text in files.items():
        path = folder / "mert_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ImportGraph(folder)


def test_imports_in_functions_count_and_those_for_types_do_not(tmp_path: Path) -> None:
    graph = written(
        tmp_path,
        {
            "__init__.py": "from mert_core.unrelated import x",
            "unrelated.py": "",
            "config/__init__.py": "",
            "a/__init__.py": '"""Nothing but words."""',
            "a/one.py": "from mert_core.config import x\ndef f():\n    from mert_core.b import two\n",
            "b/__init__.py": "from mert_core.c import three",
            "b/two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mert_core.a import four\n",
            "c/__init__.py": "",
            "c/three.py": "import mert_core.leaf",
            "a/four.py": "",
            "leaf.py": "",
        },
    )
    closure = graph.closure(["mert_core.a.one"])
    assert closure == {f"mert_core.{name}" for name in ("a.one", "b", "b.two", "c.three", "c", "leaf")}
    assert graph.paths(["mert_core.a.one"]) == ["mert_core/a/one.py", "mert_core/b", "mert_core/c", "mert_core/leaf.py"]


@pytest.mark.parametrize("stage", ENTRIES)
def test_the_committed_dependencies_are_what_a_stage_imports(repository: Path, stage: str) -> None:
    """Held against what Python itself loads, one way, and against what is read from the source, the other way."""
    deps = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"][stage]["deps"]
    named = [repository / dep for dep in deps if dep.startswith("mert_core")]
    code = f"import sys, {', '.join(ENTRIES[stage])}\n"
    code += "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('mert_core.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    loaded = {Path(name) for name in done.stdout.split()} - set((repository / "mert_core").glob("*/__init__.py"))
    outside = {path for path in loaded if not any(path == dep or dep in path.parents for dep in named)}
    assert not {path for path in outside if path.parent.name != "config"}, "imported, and no dependency"
    modules = [repository / module.replace(".", "/") for module in ImportGraph(repository).closure(ENTRIES[stage])]
    files = [path for module in modules for path in (module.with_suffix(".py"), module / "__init__.py")]
    idle = [dep for dep in named if not any(path == dep or dep in path.parents for path in files)]
    assert not idle, "a dependency that nothing imports"
