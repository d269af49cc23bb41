from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ORCHESTRATORS = {"ray", "prefect", "mlflow", "dvc", "sqlalchemy"}
FLOORS = [
    {"errors", "files", "paths", "records", "workers", "cluster", "config", "audio"},
    {"model", "teachers", "tracking"},
    {"corpus", "targets"},
    {"pretrain", "probe"},
    {"report", "catalog", "sweep", "services", "doctor", "embed", "upload"},
    {"commands"},
    {"cli"},
]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def _type_checking_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lines |= {inner.lineno for child in node.body for inner in ast.walk(child) if hasattr(inner, "lineno")}
    return lines


def test_imports_go_down_never_up(repository: Path) -> None:
    wrong = []
    for path in sorted((repository / "mert_core").rglob("*.py")):
        parts = path.relative_to(repository / "mert_core").with_suffix("").parts
        if parts == ("__init__",):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = _type_checking_lines(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.lineno in typing_only or not node.module:
                continue
            names = node.module.split(".")
            if names[0] == "flows":
                wrong.append(f"{path}: imports flows")
            if names[0] == "mert_core" and len(names) > 1 and _floor(names[1]) > _floor(parts[0]):
                wrong.append(f"{'/'.join(parts)} (floor {_floor(parts[0])}) imports {node.module}")
    assert not wrong


@pytest.mark.parametrize("room", ["audio", "model", "teachers"])
def test_no_orchestrator_below(repository: Path, room: str) -> None:
    for path in (repository / "mert_core" / room).rglob("*.py"):
        assert not {name.split(".")[0] for name in _imports(path)} & ORCHESTRATORS, path


@pytest.mark.parametrize("module", ["mert_core", "mert_core.cli", "mert_core.model", "mert_core.pretrain.loop"])
def test_importing_has_no_side_effects(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert not set(loaded.split()) & ORCHESTRATORS
    if module == "mert_core":
        assert "torch" not in loaded.split()
    assert not list(tmp_path.iterdir())
