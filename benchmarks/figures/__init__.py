"""What is measured: one module per figure, each with ``rows(rounds, tell)``."""

from benchmarks.figures import body, crops, heads, memory, step

FIGURES = {"step": step.rows, "body": body.rows, "heads": heads.rows, "crops": crops.rows, "memory": memory.rows}
