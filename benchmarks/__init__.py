"""Paired measurements against what people use today: `make bench` runs them and writes `docs/benchmarks.md`."""

from mert_core.parallel import choose_waiting

choose_waiting()  # as every command does, before torch is imported: the same for both sides of a row
