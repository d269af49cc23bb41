"""On a bare GPU machine there are torch, torchaudio, numpy and the standard library, and a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# torch itself tries a few of the others, and goes on without them
ALLOWED = {"torch", "torchaudio", "torchgen", "functorch", "numpy", "mert_core", "benchmarks"}
BLOCKER = """
import sys, importlib.abc, importlib.util
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        if not any("site-packages/torch" in str(frame.filename) for frame in stack()):
            raise ImportError(f"{name} is not there on a bare machine")
        return None
"""
"""A bare machine: what is imported by anything but torch must be allowed."""


def bare(code: str, repository: Path) -> subprocess.CompletedProcess[str]:
    blocker = "from traceback import extract_stack as stack\n" + f"ALLOWED = {ALLOWED!r}\n" + BLOCKER
    script = blocker + "sys.meta_path.insert(0, Blocker())\n" + code
    return subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False)


def benchmark_modules() -> list[str]:
    root = Path(__file__).parent.parent
    paths = sorted((root / "benchmarks").rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith("__main__")]


def test_model_loop_and_all_benchmarks_import_on_a_bare_machine(repository: Path) -> None:
    modules = ["mert_core.model", "mert_core.training.trainer", *benchmark_modules()]
    assert {"benchmarks.gpu", "benchmarks.figures.step"} <= set(modules)
    done = bare("import " + ", ".join(modules), repository)  # in one process: torch alone takes seconds
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks(repository: Path) -> None:
    done = bare("import mert_core.config", repository)
    assert done.returncode != 0 and "is not there on a bare machine" in done.stderr


def test_an_update_runs_on_a_bare_machine(repository: Path) -> None:
    code = """
import torch
from benchmarks.gpu import Options, Trainer
trainer = Trainer("mert-tiny", 2, 1.0, Options(torch.device("cpu"), False, False, 1))
before = trainer.module.encoder.masked_spec_embed.detach().clone()
trainer.update()
assert not torch.equal(before, trainer.module.encoder.masked_spec_embed)
"""
    done = bare(code, repository)
    assert done.returncode == 0, done.stderr
