"""Paired measurements against what people use today: `make bench` runs them and writes `docs/benchmarks.md`."""
