"""The stage ``probe@RUN``: a frozen encoder, or a floor, on all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mert_core.config import Config
from mert_core.corpus import Corpus
from mert_core.corpus.tables import write_table
from mert_core.files import atomic_folder, sha256_json, write_json
from mert_core.model import MertModel
from mert_core.paths import Layout
from mert_core.probe.bootstrap import interval
from mert_core.probe.embeddings import PROTOCOL, cached_embeddings, embed
from mert_core.probe.encoders import ModelEncoder, load_encoder
from mert_core.probe.heads import Recipe
from mert_core.probe.items import Items, Question, ask, read_items
from mert_core.probe.metrics import item_points
from mert_core.probe.selection import Selection, select
from mert_core.probe.tasks import FLOORS, TASKS
from mert_core.records import Record, read_record, write_record
from mert_core.tracking import Tracker

QUICK_TRAIN_ITEMS = 600
PREDICTIONS = pa.schema(
    [
        ("task", pa.string()),
        ("track_id", pa.string()),
        ("seed", pa.int64()),
        ("truth", pa.string()),
        ("prediction", pa.string()),
    ]
)


@dataclass(frozen=True)
class Verdict:
    """One task's outcome: its entry in ``scores.json``, its layers, its rows of predictions."""

    score: dict[str, Any]
    by_layer: list[tuple[int, float]]
    predictions: pa.Table


def recipe_of(config: Config) -> Recipe:
    """Return how the parameters say probes are trained."""
    probe = config.probe
    return Recipe(probe.hidden, probe.dropout, probe.batch_items, probe.max_epochs, probe.patience)


def protocol_of(config: Config) -> dict[str, Any]:
    """Return what two scores must have in common to be compared; its hash stands beside each score."""
    return {
        "embedding": PROTOCOL,
        "features": "standardised with the training split's mean and deviation, every encoder alike",
        "selection": "layer and rate: validation score averaged over seeds; epoch: each probe's own validation score",
        "probe": config.probe.model_dump(exclude={"tasks", "floor_run"}),
        "tasks": {name: [task.items, task.label, task.metric] for name, task in TASKS.items()},
    }


def judge(
    name: str, question: Question, features: NDArray[np.float32], items: Items, config: Config, device: str
) -> Verdict:
    """Select on training and validation items, then read the test items once.

    Args:
        name: the task.
        question: its positions and answers.
        features: of all items (layers, items, width), memory-mapped; those of the test split are read after selection.
        items: whose they are.
        config: the parameters.
        device: where to train.
    """
    probe = config.probe
    selection: Selection = select(
        (features[:, question.positions["train"]], question.truth["train"]),
        (features[:, question.positions["valid"]], question.truth["valid"]),
        question.points, recipe_of(config), rates=probe.rates, seeds=probe.seeds, name=name, device=device,
    )  # fmt: skip
    test = question.positions["test"]
    predicted = selection.predict(features[selection.layer][test])
    earned = item_points(question.points, question.truth["test"], predicted)
    low, high = interval(earned, probe.bootstrap, config.seed)
    score = {
        "metric": question.task.metric,
        "value": float(earned.mean()),
        "low": low,
        "high": high,
        "items": len(test),
        "classes": len(question.names),
        "layer": selection.layer,
        "rate": selection.rate,
        "validation": selection.validation,
        "per_seed": [float(value) for value in earned.mean(axis=1)],
    }
    seeds, track_ids = len(probe.seeds), [items.track_ids[position] for position in test]
    rows = {
        "task": [name] * (seeds * len(test)),
        "track_id": track_ids * seeds,
        "seed": [seed for seed in probe.seeds for _ in test],
        "truth": question.answers["test"] * seeds,
        "prediction": [question.names[index] for index in predicted.flatten()],
    }
    return Verdict(score, selection.by_layer, pa.table(rows, schema=PREDICTIONS))


def run(config: Config, layout: Layout, tracker: Tracker, run_name: str) -> Record:
    """Probe a named run's checkpoint, or a floor, on the tasks of ``probe.tasks``.

    Writes ``scores.json``, ``layers.json`` and ``predictions.parquet`` to ``layout.scores(run_name)``.

    Raises:
        MertError: no such run, a missing or unlabelled probe set, a missing checkpoint.
    """
    torch.set_num_threads(config.threads)
    encoder = load_encoder(config, layout, run_name)
    corpus = Corpus.open(layout.probe_set)
    inputs = {"probe_set": corpus.record.id}
    if run_name not in FLOORS:
        inputs["checkpoint"] = read_record(layout.model(run_name)).id

    kinds = {kind: read_items(corpus, kind) for kind in sorted({TASKS[name].items for name in config.probe.tasks})}
    questions = {name: ask(TASKS[name], kinds[TASKS[name].items]) for name in config.probe.tasks}
    embeddings = {kind: cached_embeddings(encoder, items, layout.caches) for kind, items in kinds.items()}
    verdicts: dict[str, Verdict] = {}
    for name, question in questions.items():
        kind = question.task.items
        verdicts[name] = judge(name, question, embeddings[kind], kinds[kind], config, encoder.device)
        _track(tracker, name, verdicts[name])

    protocol = sha256_json(protocol_of(config))
    tracker.params({"probed": run_name, "probe": config.probe.model_dump()})
    tracker.tags({"probe_protocol": protocol})
    tracker.table("scores", [{"task": name, **verdict.score} for name, verdict in verdicts.items()])
    with atomic_folder(layout.scores(run_name)) as folder:
        _write(folder, run_name, protocol, verdicts)
        return write_record(
            folder, stage="probe", kind="scores", run=run_name, inputs=inputs,
            params={"seed": config.seed, "threads": config.threads, "probe": config.probe.model_dump()},
            facts={"protocol": protocol, "tasks": {name: verdict.score for name, verdict in verdicts.items()}},
        )  # fmt: skip


def _write(folder: Path, run_name: str, protocol: str, verdicts: dict[str, Verdict]) -> None:
    scores = {name: verdict.score for name, verdict in verdicts.items()}
    write_json(folder / "scores.json", {"run": run_name, "protocol": protocol, "tasks": scores})
    write_json(folder / "layers.json", {name: verdict.by_layer for name, verdict in verdicts.items()})
    table = pa.concat_tables([verdict.predictions for verdict in verdicts.values()])
    write_table(folder / "predictions.parquet", table)


def _track(tracker: Tracker, task: str, verdict: Verdict) -> None:
    score = verdict.score
    figures = {name: float(score[name]) for name in ("low", "high", "validation", "layer")}
    figures[score["metric"]] = score["value"]
    tracker.metrics({f"{task}/{name}": value for name, value in figures.items()})
    for layer, value in verdict.by_layer:
        tracker.metrics({f"{task}/validation_by_layer": value}, step=layer)


def quick_score(model: MertModel, config: Config, layout: Layout, task: str) -> float:
    """Return the validation score of one task for a model in memory: what judges a trial of the sweep.

    The middle rates and one seed, at most 600 training items, all validation items; the test split is not touched, and
    nothing is cached. The model is left on its device and in its mode.

    Raises:
        MertError: a missing or unlabelled probe set.
    """
    items = read_items(Corpus.open(layout.probe_set), TASKS[task].items)
    question = ask(TASKS[task], items)
    pool = np.arange(len(question.positions["train"]))
    if len(pool) > QUICK_TRAIN_ITEMS:
        pool = np.sort(np.random.default_rng(config.seed).choice(pool, QUICK_TRAIN_ITEMS, replace=False))
    training = model.training
    try:
        encoder = ModelEncoder(model)
        train = embed(encoder, items, question.positions["train"][pool], name="train")
        valid = embed(encoder, items, question.positions["valid"], name="valid")
    finally:
        model.train(training)
    rates = sorted(config.probe.rates)
    middle = rates[len(rates) // 4 : max(len(rates) // 4 + 1, -(-3 * len(rates) // 4))]
    selection = select(
        (train, question.truth["train"][pool]), (valid, question.truth["valid"]), question.points, recipe_of(config),
        rates=middle, seeds=config.probe.seeds[:1], name=task, device=encoder.device,
    )  # fmt: skip
    return selection.validation
