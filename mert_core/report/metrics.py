"""``metrics.json``: the figures that `dvc metrics` compares between revisions."""

from __future__ import annotations

from typing import Any

from mert_core.report.collect import Material, Training
from mert_core.report.figures_targets import entropy_bits, used_share
from mert_core.report.judge import beaten


def metrics_of(material: Material) -> dict[str, Any]:
    """Return ``probe`` by run, task and metric, ``pretrain`` by run and term, and figures of corpus and targets."""
    probe = {
        item.run: {
            task: {
                metric: {name: found[name] for name in ("value", "low", "high")}
                for metric, found in sorted(({score["metric"]: score} | score["metrics"]).items())
            }
            for task, score in sorted(item.tasks.items())
        }
        for item in material.scores
    }
    return {
        "probe": probe,
        "pretrain": {training.run: _final(training) for training in material.trainings},
        "beats": beaten(material),
        "targets": {
            labels.teacher: {
                "min_entropy_bits": float(entropy_bits(labels.usage).min()),
                "min_usage": float(used_share(labels.usage).min()),
            }
            for labels in material.labels
            if labels.usage is not None
        },
        "corpus": {name: material.corpus.facts[name] for name in ("tracks", "seconds") if name in material.corpus.facts}
        | {"quarantined": len(material.quarantine)},
    }


def _final(training: Training) -> dict[str, float]:
    """Return each term's last validation value, and what guessing by frequency would cost."""
    final = {term: float(values[-1]) for (split, term), (_, values) in training.curve.items() if split == "valid"}
    final |= {f"{name}_unigram": sum(nats) for name, nats in training.unigram.items()}
    return dict(sorted(final.items()))
