"""The model card of an exported run: front matter, the facts of its records and what it cost, nothing else."""

from __future__ import annotations

import json
from typing import Any

from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.files import canonical_json
from mert_core.paths import Layout
from mert_core.report.load import read_scores
from mert_core.report.titles import DEMO_PREFIX, input_title, metric_title, ordered
from mert_core.training.model_card import cost_section, read_cost

_TEXT = """---
library_name: transformers
pipeline_tag: feature-extraction
license: other
tags:
- music
- audio
- hubert
- mert
---

# {run}

A music encoder trained with MERT's method ([arXiv 2306.00107](https://arxiv.org/abs/2306.00107)): masked prediction of
what its teachers say of clean music ({teachers}). {parameters:,} parameters, {layers} hidden states at 75 frames per
second.

```python
import torch
from transformers import AutoFeatureExtractor, HubertModel

model = HubertModel.from_pretrained("PATH").eval()
extractor = AutoFeatureExtractor.from_pretrained("PATH")
inputs = extractor(waveform, sampling_rate=24000, return_tensors="pt")    # float32 mono at 24 kHz, not normalised
with torch.no_grad():
    output = model(**inputs, output_hidden_states=True)
```

{norm}Embed clips one by one, or clips of equal length: `HubertModel` normalises over padding too, so a padded batch
changes its embeddings. `mert_core.MertModel` loads the same folder and does not have this fault.

## Training

{training}

{cost}

## Scores

{scores}

## Data and licence

{data}

The licence field says *other*, because that of the weights is for whoever trained them to decide.
"""

_FINAL_NORM = """The last of `output.hidden_states` is before the final norm in transformers 5, and behind it in
transformers 4 and in `mert_core`; `output.last_hidden_state` is behind it in all.

"""


def model_card(layout: Layout, run: str) -> str:
    """Return the Markdown of a run's card.

    Raises:
        MertError: the run has no record.
    """
    if not (layout.model(run) / RECORD_NAME).is_file():
        raise MertError(
            f"run {run} has not been trained here: {layout.model(run)} holds no {RECORD_NAME}. "
            f"Train it with `mert pretrain --run {run}`, or fetch it with `dvc pull`."
        )
    record = read_record(layout.model(run))
    config = json.loads((layout.model(run) / "config.json").read_text(encoding="utf-8"))
    return _TEXT.format(
        run=f"MERT, run {run}",
        teachers=", ".join(record.facts["teachers"]),
        parameters=record.facts["parameters"],
        layers=config["num_hidden_layers"] + 1,
        norm=_FINAL_NORM if config["do_stable_layer_norm"] else "",
        training=_training(record),
        cost="\n".join(cost_section(read_cost(layout.cards, record.id))),
        scores=_scores(layout, record),
        data=_data(layout, record),
    )


def _training(record: Record) -> str:
    facts, params = record.facts, record.params["pretrain"]
    rows: list[tuple[str, Any]] = [
        ("updates", f"{facts['steps']:,}"),
        ("music heard", f"{facts['audio_hours_seen']:.3g} h, {facts['epochs']:.3g} epochs"),
        *((f"teacher: {name}", f"{of['kind']}, {of['targets']}") for name, of in facts["teachers"].items()),
        ("crops", f"{params['crop_seconds']:g} s"),
        ("peak learning rate", f"{params['learning_rate']:g}"),
        ("precision", facts["precision"]),
        ("seed", params["seed"]),
        ("record", f"`{record.id}`"),
    ]
    rows += [(f"made from: {role}", f"`{identity}`") for role, identity in sorted(record.inputs.items())]
    rows += [
        (f"validation: {name}", f"{facts['valid'][name]:.4g}")
        for name in (*facts["teachers"], "accuracy")
        if name in facts["valid"]
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    weights = {term["teacher"]: term["weight"] for term in params["teachers"]} | params["weights"]
    return (
        f"| | |\n|---|---|\n{table}\n\nLoss weights: `{canonical_json(weights).strip()}`. Losses of codes are in nats, "
        "summed over codebooks."
    )


def _scores(layout: Layout, record: Record) -> str:
    """Return the table of probe scores of exactly these weights."""
    folder = layout.scores(record.run or "")
    if not (folder / RECORD_NAME).is_file() or read_record(folder).inputs.get("checkpoint") != record.id:
        return "This checkpoint has not been probed."
    tasks = read_scores(layout, record.run or "").tasks
    rows = [
        f"| {task} | {metric_title(metric)} | {input_title(entry['input'])} | {score['value']:.3f} | "
        f"{score['low']:.3f} to {score['high']:.3f} |"
        for task, entry in sorted(tasks.items())
        for metric, score in ((name, entry["metrics"][name]) for name in ordered(task, entry["metrics"]))
    ]
    note = "Tasks named demo/… are proxy tasks on performed scores: not to be compared with published figures.\n\n"
    return "\n".join(
        [
            f"{note if any(task.startswith(DEMO_PREFIX) for task in tasks) else ''}"
            "| task | metric | probed | test score | 95 % interval |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _data(layout: Layout, record: Record) -> str:
    if not (layout.corpus / RECORD_NAME).is_file():
        return "The record of the training music does not lie here."
    corpus = read_record(layout.corpus)
    if corpus.id != record.inputs.get("corpus"):
        return "The record of the training music does not lie here: another corpus does."
    licences = "; ".join(corpus.facts.get("licences", [])) or "unknown"
    hours = corpus.facts.get("seconds", 0) / 3600
    return f"{corpus.facts.get('tracks', 0):,} tracks, {hours:.3g} h. Licences of the music: {licences}."
