"""`python -m benchmarks`: measures every figure and writes the page."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.figures import FIGURES
from benchmarks.machine import describe, has_bf16_instructions
from benchmarks.page import page
from benchmarks.row import Row
from mert_core.files import write_text

_NO_BF16 = (
    "This processor has no bf16 instructions: torch emulates them, on both sides, and bf16 is slower than fp32 here. "
    "The bf16 rows say how the two sides compare under that emulation, not what a processor with bf16 would gain."
)


def main() -> None:
    """Measure; with all figures, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FIGURES, help="measure and print these, write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--to", type=Path, default=Path("docs/benchmarks.md"), help="where the page goes")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error(f"--rounds {arguments.rounds} --threads {arguments.threads}: expected 1 or more of both")
    torch.set_num_threads(arguments.threads)
    start, rows = time.monotonic(), list[Row]()
    names = arguments.only or list(FIGURES)
    for number, name in enumerate(names, 1):

        def tell(text: str, place: str = f"{number}/{len(names)} {name}") -> None:
            print(f"{time.monotonic() - start:6.0f} s  {place}: {text}", file=sys.stderr, flush=True)

        found = FIGURES[name](arguments.rounds, tell)
        rows += found
        for row in found:
            tell(f"{row.figure}: {row.ratio:.3g}× ({row.ours} against {row.theirs})")
    if arguments.only:
        return
    write_text(arguments.to, page(rows, describe(), [] if has_bf16_instructions() else [_NO_BF16]))
    print(f"wrote {arguments.to}", file=sys.stderr)


if __name__ == "__main__":
    main()
