"""What code a stage imports, so that its dependencies in ``dvc.yaml`` are what it runs and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# Parameters reach a stage as values, which DVC reads out of `params.yaml` and out of these classes' bodies.
VALUES_NOT_CODE = "mert_core.config"
# A folder is named whole where the stage imports at least this share of its files; else its files are.
_WHOLE_FOLDER = 1 / 2


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
        parts = module.split(".")
        packages = [".".join(parts[:depth]) for depth in range(2, len(parts))]
        return [package for package in packages if not self._is_bare(package)]

    def _is_bare(self, package: str) -> bool:
        """Tell whether a package's ``__init__`` holds nothing but its docstring."""
        body = ast.parse(self._paths[package].read_text(encoding="utf-8")).body
        return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)

    def _read(self, module: str) -> set[str]:
        tree = ast.parse(self._paths[module].read_text(encoding="utf-8"))
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for child in node.body
            for inner in ast.walk(child)
        }
        names: set[str] = set()
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
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
