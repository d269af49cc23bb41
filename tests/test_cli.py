from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mert_core.config import WarmStart
from mert_core.model.checkpoint import fingerprint
from mert_core.paths import Layout
from tests.trained_run import write_trained_run


def _mert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mert_core.cli", *arguments], cwd=cwd, capture_output=True, text=True)


def test_an_unknown_key_stops_before_any_work(repository: Path, tmp_path: Path) -> None:
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    wrong = text.replace("learning_rate: 2.0e-3   #", "learning_rat: 2.0e-3   #")
    (tmp_path / "params.yaml").write_text(wrong, encoding="utf-8")
    found = _mert("corpus", cwd=tmp_path)
    assert found.returncode == 2
    assert "pretrain has 1 error(s):\n  learning_rat: unknown key" in found.stderr
    assert "Traceback" not in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_input_names_the_command_to_run(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    found = _mert("targets", "rvqvae", "-S", "catalog.url=null", cwd=tmp_path)
    assert found.returncode == 2
    assert "dvc repro" in found.stderr
    assert not (tmp_path / "data" / "targets").exists()


@pytest.mark.parametrize("command", ["corpus", "probe", "embed", "lineage", "up", "sweep"])
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    found = _mert(command, "--help", cwd=tmp_path)
    assert found.returncode == 0
    assert "usage: mert" in found.stdout


@pytest.mark.parametrize(("argument", "status"), [("config", {141}), ("--help", {0, 141})])  # argparse may look away
def test_a_reader_that_stops_reading_ends_a_command_quietly(argument: str, status: set[int], repository: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mert_core.cli", argument]
    done = subprocess.run(command, cwd=repository, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode in status and done.stderr == ""


def test_a_broken_pipe_of_the_commands_own_stays_an_error(repository: Path) -> None:
    code = """
import os
from mert_core import cli
reading, writing = os.pipe()
os.close(reading)
cli._context = lambda options: os.write(writing, b"to a server")
cli.main(["config"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr


@pytest.fixture
def trained(repository: Path, tmp_path: Path) -> Path:
    """A working directory with a trained run."""
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    write_trained_run(Layout.at(tmp_path))
    return tmp_path


def test_export_import_and_embed_from_the_command_line(trained: Path) -> None:
    exported = _mert("export", "--run", "95m", "--to", "out", cwd=trained)
    assert exported.returncode == 0, exported.stderr
    names = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in (trained / "out").iterdir()} == names
    card = (trained / "out" / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["library_name"] == "transformers"
    facts = "1,234", "12.25", "8 × 16 codes", "c" * 64, "## Cost\n\nNot known here", "not been probed"
    assert all(fact in body for fact in facts)
    assert "{" not in body.replace("`{", "").split("Loss weights")[0]

    imported = _mert("import", "data/pretrain/95m", "--to", "taken", cwd=trained)
    assert imported.returncode == 0, imported.stderr
    line = imported.stdout.strip().splitlines()[-1]
    start = yaml.safe_load(line)["start"]
    assert WarmStart(**start).heads == "stored" and start["sha256"] == fingerprint(trained / "taken")

    soundfile.write(trained / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24000), 24000)
    embedded = _mert("embed", "a.wav", "--model", "taken", cwd=trained)
    assert embedded.returncode == 0, embedded.stderr
    assert np.load(trained / "a.npy").shape == (4, 74, 48)
    (trained / "bad.wav").write_bytes(b"no music")
    bad = _mert("embed", "bad.wav", "--model", "taken", cwd=trained)
    assert bad.returncode == 2 and "bad.wav cannot be used" in bad.stderr
    assert ".." not in bad.stderr and "Traceback" not in bad.stderr
    damaged = _mert("import", "bad.wav", "--to", "nothing", cwd=trained)
    assert damaged.returncode == 2 and "bad.wav" in damaged.stderr and not (trained / "nothing").exists()


def test_an_untrained_run_and_one_that_is_not_there(trained: Path) -> None:
    for run, found in (("330m", "mert pretrain --run 330m"), ("large", "no run is named 'large'")):
        done = _mert("export", "--run", run, "--to", "out", cwd=trained)
        assert done.returncode == 2 and found in done.stderr and "Traceback" not in done.stderr
    assert not (trained / "out").exists()


WRITING = {
    "export": ["--run", "95m", "--to"],
    "import": ["data/pretrain/95m", "--to"],
    "embed": ["a.wav", "--model", "data/pretrain/95m", "--out"],
}


@pytest.mark.parametrize("command", WRITING)
def test_what_cannot_be_written_is_one_sentence(trained: Path, command: str) -> None:
    soundfile.write(trained / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24000), 24000)
    done = _mert(command, *WRITING[command], "params.yaml/out", cwd=trained)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"mert {command}: cannot write params.yaml/") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_leaves_nothing_behind(trained: Path, command: str) -> None:
    """A limit on the size of files stands for the disk: the system refuses in the middle of the weights."""
    soundfile.write(trained / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 24000)
    before = sorted(trained.iterdir())
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code += "from mert_core.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-B", "-c", code, command, *WRITING[command], "out"]
    done = subprocess.run(arguments, cwd=trained, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"mert {command}: cannot write out" in done.stderr and "Traceback" not in done.stderr
    assert sorted(trained.iterdir()) == before


@pytest.mark.parametrize("seconds", ["nan", "inf", "long"])
def test_chunks_are_a_number_of_seconds(tmp_path: Path, seconds: str) -> None:
    found = _mert("embed", "a.wav", "--model", "m", "--chunk-seconds", seconds, cwd=tmp_path)
    assert found.returncode == 2 and f"'{seconds}' is no number of seconds" in found.stderr
