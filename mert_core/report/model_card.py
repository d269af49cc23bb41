"""The model card of an exported run: front matter, the facts of its records and what it cost, nothing else."""

from __future__ import annotations

import json

from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.files import canonical_json
from mert_core.paths import Layout
from mert_core.report.load import read_scores
from mert_core.report.pages import templates
from mert_core.training.model_card import cost_section, read_cost


def model_card(layout: Layout, run: str) -> str:
    """Return the Markdown of a run's card.

    Raises:
        MertError: the run has no record.
    """
    folder, scores = layout.model(run), layout.scores(run)
    if not (folder / RECORD_NAME).is_file():
        raise MertError(
            f"run {run} has not been trained here: {folder} holds no {RECORD_NAME}. "
            f"Train it with `mert pretrain --run {run}`, or fetch it with `dvc pull`."
        )
    record = read_record(folder)
    params = record.params["pretrain"]
    weights = {term["teacher"]: term["weight"] for term in params["teachers"]} | params["weights"]
    # Scores of exactly these weights, or none.
    probed = (scores / RECORD_NAME).is_file() and read_record(scores).inputs.get("checkpoint") == record.id
    card = templates().get_template("model_card.md.j2")
    return card.render(
        record=record,
        facts=record.facts,
        params=params,
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        weights=canonical_json(weights).strip(),
        cost="\n".join(cost_section(read_cost(layout.cards, record.id))),
        tasks=read_scores(layout, run).tasks if probed else {},
        data=_data(layout, record),
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
