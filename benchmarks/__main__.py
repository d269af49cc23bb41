"""`python -m benchmarks`: measures every figure and writes the page."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.figures import FIGURES
from benchmarks.page import describe, page
from benchmarks.row import Row
from mert_core.files import write_json, write_text
from mert_core.training.worker import multiplies_bf16

_NO_BF16 = "This processor has no bf16 instructions, so that runs in bf16 are refused and there are no rows of it."


def main() -> None:
    """Measure; with all figures, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FIGURES, help="measure and print these, write no page")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--to", type=Path, default=Path("docs/benchmarks.md"), help="where the page goes")
    parser.add_argument("--rows", type=Path, help="with --only: a JSON file for the rows")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error(f"--rounds {arguments.rounds} --threads {arguments.threads}: expected 1 or more of both")
    torch.set_num_threads(arguments.threads)
    if arguments.only:
        rows = [row for name in arguments.only for row in _measure(name, arguments.rounds)]
        if arguments.rows:
            write_json(arguments.rows, [asdict(row) for row in rows])
        return
    rows = [row for name in FIGURES for row in _measure_apart(name, arguments.rounds, arguments.threads)]
    write_text(arguments.to, page(rows, describe(), [] if multiplies_bf16(torch.device("cpu")) else [_NO_BF16]))
    print(f"wrote {arguments.to}", file=sys.stderr)


def _measure(name: str, rounds: int) -> list[Row]:
    start = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {name}: {text}", file=sys.stderr, flush=True)

    rows = FIGURES[name](rounds, tell)
    for row in rows:
        tell(f"{row.figure}: {row.ratio:.3g}× ({row.ours} against {row.theirs})")
    return rows


def _measure_apart(name: str, rounds: int, threads: int) -> list[Row]:
    """Measure one figure in a process of its own, whose memory no other figure has left in pieces."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        given = ["--only", name, "--rounds", str(rounds), "--threads", str(threads), "--rows", str(file)]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks", *given], check=True)
        return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    main()
