"""The house holds: imports go down and in no circle, a class name means one thing, orchestrators stay above."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ORCHESTRATORS = {"ray", "prefect", "mlflow", "dvc", "sqlalchemy"}
FLOORS = [
    {"errors", "files", "paths", "parallel", "cluster", "registry"},
    {"config"},
    {"audio"},
    {"features"},
    {"data"},
    {"model", "lineage"},
    {"teachers", "synth", "tracking"},
    {"corpus", "datasets", "targets"},
    {"training"},
    {"probing"},
    {"experiments", "report"},
    {"services", "doctor", "embed", "upload"},
    {"cli"},
]


@cache
def trees(package: Path) -> dict[str, ast.Module]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(package: Path, module: str) -> set[str]:
    """Return the package's modules that a module imports: at the top, in functions and for types."""
    known, found = trees(package), set()
    for node in ast.walk(known[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            outer = {node.module} if len(inner) < len(node.names) and node.module in known else set()
            found |= inner | outer
    return found - {module}


def floor(module: str) -> int:
    room = module.split(".")[1] if "." in module else "cli"  # the package itself may import anything
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.fixture(scope="module")
def package(repository: Path) -> Path:
    return repository / "mert_core"


def test_imports_go_down_never_up(package: Path) -> None:
    wrong = [
        f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})"
        for module in trees(package)
        for other in imports(package, module)
        if floor(other) > floor(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_files_import_each_other_by_any_way(package: Path) -> None:
    graph = {module: imports(package, module) for module in trees(package)}
    below: set[str] = set()
    while layer := {module for module, others in graph.items() if module not in below and others <= below}:
        below |= layer
    assert not graph.keys() - below, f"in a circle, or above one: {sorted(graph.keys() - below)}"


def test_a_class_name_means_one_thing(package: Path) -> None:
    homes = defaultdict(list)
    for module, tree in trees(package).items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def test_the_package_does_not_know_the_flows_and_what_lies_low_no_orchestrator(package: Path) -> None:
    for module, tree in trees(package).items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
        low = module.split(".")[1:2] in (["audio"], ["features"], ["data"], ["model"], ["teachers"])
        assert not names & ({"flows"} | (ORCHESTRATORS if low else set())), module


@pytest.mark.parametrize("module", ["mert_core", "mert_core.cli", "mert_core.model", "mert_core.training.trainer"])
def test_importing_has_no_side_effects(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", code]
    loaded = set(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & ORCHESTRATORS
    assert "torch" not in loaded or module not in {"mert_core", "mert_core.cli"}, "`mert --help` answers at once"
    assert not list(tmp_path.iterdir())
