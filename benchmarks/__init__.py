"""Paired measurements against what people use today: `make bench` runs them and writes `docs/benchmarks.md`."""

from mert_core.parallel import wait_passively

wait_passively()  # as every command does, before torch is imported: the same for both sides of a row
