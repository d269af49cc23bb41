"""A stage depends on the code that it imports, and on no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mert_core.experiments.imports import ImportGraph

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
