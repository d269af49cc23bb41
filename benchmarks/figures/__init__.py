"""What is measured: one module per figure, each with ``rows(rounds, tell)``."""

from benchmarks.figures import body, cqt, crops, encodec, heads, memory, probes, step, waiting

FIGURES = {
    "step": step.rows,
    "body": body.rows,
    "heads": heads.rows,
    "cqt": cqt.rows,
    "encodec": encodec.rows,
    "crops": crops.rows,
    "probes": probes.rows,
    "memory": memory.rows,
    "waiting": waiting.rows,
}
