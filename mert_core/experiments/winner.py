"""``mert sweep --apply``: a sweep's winner becomes part of ``params.yaml``, and thereby of what DVC compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mert_core.config import load_config
from mert_core.errors import MertError
from mert_core.experiments.rendered import stage_name
from mert_core.experiments.sweep import RESULT_NAME, Sweep, Trial, sweeps_folder
from mert_core.files import atomic_path

if TYPE_CHECKING:
    from mert_core.config import LossTerm
    from mert_core.paths import Layout

DIGITS = 4  # of a weight; more would claim a precision that a search of some trials has not


def read_sweep(layout: Layout, sweep_id: str) -> Sweep:
    """Read a finished sweep by its id, or ``latest``.

    Raises:
        MertError: there is none of that name; the message lists those there are.
    """
    folder = sweeps_folder(layout)
    finished = sorted(path.parent.name for path in folder.glob(f"*/{RESULT_NAME}"))  # ids begin with their time
    if not finished:
        raise MertError(f"no finished sweep in {folder}. Start one with `mert sweep`.")
    chosen = finished[-1] if sweep_id == "latest" else sweep_id
    if chosen not in finished:
        raise MertError(f"no finished sweep {sweep_id!r}; there are {', '.join(finished)} (or latest)")
    tree = json.loads((folder / chosen / RESULT_NAME).read_text(encoding="utf-8"))
    trials = [Trial(**item) for item in tree.pop("trials")]
    return Sweep(**{**tree, "winner": Trial(**tree["winner"]), "trials": trials})


def apply_winner(layout: Layout, params: Path, sweep_id: str) -> str:
    """Write a sweep's winning weights into ``runs.<run>.teachers`` of a parameter file, and nothing else.

    Every other byte stays, comments included. The file is replaced at once, or, were the result not valid, not at all.

    Returns:
        A sentence that says what was written.

    Raises:
        MertError: no such sweep, or the file has no such run.
    """
    sweep = read_sweep(layout, sweep_id)
    terms = load_config(params).run(sweep.run).teachers
    weights = {name: _rounded(weight) for name, weight in sweep.winner.weights.items()}
    if missing := sorted(weights.keys() - {term.teacher for term in terms}):
        raise MertError(
            f"run {sweep.run} no longer predicts {', '.join(missing)}, whose weight sweep {sweep.id} searched; "
            "search anew with `mert sweep`"
        )
    terms = [term.model_copy(update={"weight": weights.get(term.teacher, term.weight)}) for term in terms]
    text = with_weights(params.read_text(encoding="utf-8"), sweep.run, terms)
    with atomic_path(params) as temporary:
        temporary.write_text(text, encoding="utf-8")
        load_config(temporary)
    said = ", ".join(f"{name} {value:g}" for name, value in weights.items())
    return (
        f"{params.name}: runs.{sweep.run}.teachers: {said} "
        f"(sweep {sweep.id}, {sweep.task} {sweep.winner.score:.4f} after {sweep.winner.step} steps). "
        f"`dvc repro {stage_name('pretrain', sweep.run)}` trains with them."
    )


def with_weights(text: str, run: str, terms: list[LossTerm]) -> str:
    """Return a parameter file's text with the teachers' weights of a named run.

    Spliced in at the places the parser reports: a YAML writer would also rewrite numbers and nulls elsewhere.
    """
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    run_node = _child(_child(tree, "runs"), run)
    if not isinstance(run_node, yaml.MappingNode):
        raise MertError(f"the parameters have no mapping runs.{run} to write weights into")
    present = _child(run_node, "teachers")
    splices: list[tuple[int, int, str]] = []
    if isinstance(present, yaml.SequenceNode):
        weights = {term.teacher: term.weight for term in terms}
        for item in present.value:
            name, node = _child(item, "teacher"), _child(item, "weight")
            if name is None:
                continue
            weight = repr(weights[name.value])
            if node is not None:
                splices.append((node.start_mark.index, node.end_mark.index, weight))
            else:  # the default, which stands beside the name from now on
                between = ", " if item.flow_style else f"\n{' ' * item.start_mark.column}"
                splices.append((name.end_mark.index, name.end_mark.index, f"{between}weight: {weight}"))
    else:
        entries = (f"{{teacher: {term.teacher}, targets: {term.targets}, weight: {term.weight!r}}}" for term in terms)
        line = f"teachers: [{', '.join(entries)}]"
        if run_node.flow_style:
            place = run_node.end_mark.index - 1
            splices.append((place, place, f", {line}" if run_node.value else line))
        else:
            place = run_node.start_mark.index
            splices.append((place, place, f"{line}\n{' ' * run_node.start_mark.column}"))
    for start, end, new in sorted(splices, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
