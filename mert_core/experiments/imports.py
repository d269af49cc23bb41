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
