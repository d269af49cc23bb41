"""The command ``mert``: what its commands are called and which options they take."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from pathlib import Path

from mert_core.commands import stages, tools
from mert_core.commands.context import PARAMS_NAME
from mert_core.errors import MertError
from mert_core.parallel import choose_waiting


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0, 1 (a check found a problem), 2 (bad input) or 130 (Ctrl-C)."""
    options = _parser().parse_args(arguments)
    choose_waiting()  # here, because nothing that has threads has been imported yet
    logging.basicConfig(format="%(message)s")  # to standard error: warnings of all, and what this package has to say
    logging.getLogger("mert_core").setLevel(logging.INFO)
    try:
        return options.action(options)
    except MertError as error:
        print(f"mert {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nmert {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mert", description="From music to a probed, compared and exportable model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, (help_text, takes_run) in stages.STAGES.items():
        stage = commands.add_parser(name, help=help_text, description=help_text)
        if takes_run:
            stage.add_argument("--run", required=True, metavar="NAME", help="a run of params.yaml")
        _common(stage)
        stage.set_defaults(action=stages.run_stage)

    plan = commands.add_parser("plan", help="render dvc.yaml from params.yaml")
    plan.add_argument("--check", action="store_true", help="say whether it is up to date, and write nothing")
    _common(plan)
    plan.set_defaults(action=tools.plan)

    config = commands.add_parser("config", help="the resolved parameters, each with where it comes from")
    config.add_argument("--run", metavar="NAME", help="those of one run of params.yaml")
    _common(config)
    config.set_defaults(action=tools.config)

    teachers = commands.add_parser("teachers", help="list all teachers, or fit one")
    todo = teachers.add_subparsers(dest="todo", required=True, metavar="list|fit")
    listed = todo.add_parser("list", help="every teacher: what it gives, what it is fitted on, whether it is here")
    _common(listed)
    listed.set_defaults(action=tools.list_teachers)
    fit = todo.add_parser("fit", help="fit a teacher on the corpus, or take published weights")
    fit.add_argument("run", metavar="NAME", help="as `mert teachers list` names it")
    fit.add_argument("--download", action="store_true", help="fetch the published weights, if they are not here")
    _common(fit)
    fit.set_defaults(action=stages.run_stage)

    probe = commands.add_parser(
        "probe", help="probe a run, a floor (random-weights, mel-statistics) or any encoder on labelled tasks"
    )
    whom = probe.add_mutually_exclusive_group(required=True)
    whom.add_argument("--run", metavar="NAME", help="a run of params.yaml, or a floor")
    whom.add_argument(
        "--model", metavar="DIR", help="a folder (MERT; HuBERT or wav2vec 2.0 of transformers), or module:function"
    )
    probe.add_argument("--name", metavar="NAME", help="what tables call --model; default: the folder's name")
    probe.add_argument(
        "--task",
        dest="tasks",
        action="append",
        metavar="TASK",
        help="one task (again for more); default: with --run all of probe.tasks, with --model the fourteen",
    )
    probe.add_argument("--data", type=Path, metavar="DIR", help="where the one task's data set lies")
    _common(probe)
    probe.set_defaults(action=stages.probe_tasks)

    targets = commands.add_parser("targets", help="a teacher's targets for every track, then the label gate")
    targets.add_argument("run", metavar="TEACHER", help="as `mert teachers list` names it")
    _common(targets)
    targets.set_defaults(action=stages.run_stage)

    doctor = commands.add_parser("doctor", help="check this machine, the packages and the checkout")
    doctor.add_argument("--datasets", action="store_true", help="look at the labelled public data sets instead")
    doctor.add_argument("--quick", action="store_true", help="with --datasets: count files, compare no checksums")
    _common(doctor)
    doctor.set_defaults(action=tools.doctor)

    embed = commands.add_parser("embed", help="hidden states of one audio file as .npy")
    embed.add_argument("audio", type=Path, help="wav, flac, ogg, opus or mp3; any rate, any channels")
    embed.add_argument("--model", type=Path, required=True, help="folder with config.json and weights")
    embed.add_argument("--layer", default="all", help="hidden state 0…L, or all (the default)")
    embed.add_argument(
        "--chunk-seconds", type=_seconds, default=30.0, help="longer music is computed in chunks (default: 30)"
    )
    embed.add_argument(
        "--margin-seconds", type=_seconds, default=5.0, help="overlap thrown away at each end (default: 5)"
    )
    embed.add_argument("--out", type=Path, help="where to write; default: the audio file's name with .npy, here")
    embed.set_defaults(action=tools.embed)

    export = commands.add_parser("export", help="write a run's encoder as a folder that transformers.HubertModel loads")
    export.add_argument("--run", required=True, metavar="NAME")
    export.add_argument("--to", type=Path, required=True, metavar="DIR")
    _common(export)
    export.set_defaults(action=tools.export)

    import_ = commands.add_parser("import", help="take over a Hugging Face folder or a fairseq .pt, heads included")
    import_.add_argument("checkpoint", type=Path, help="folder with config.json and weights, or fairseq checkpoint")
    import_.add_argument("--encoder-only", action="store_true", help="leave the pre-training heads behind")
    import_.add_argument("--to", type=Path, required=True, metavar="DIR")
    import_.set_defaults(action=tools.import_)

    leaderboard = commands.add_parser(
        "leaderboard", help="scores of all probed runs beside baselines and published ones"
    )
    leaderboard.add_argument("--format", choices=("text", "csv", "html"), default="text", help="default: text")
    leaderboard.add_argument("--demo", action="store_true", help="the stand-ins from performed scores instead")
    leaderboard.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two probed runs, paired, task by task")
    leaderboard.add_argument("--out", type=Path, metavar="FILE", help="where to write; default: print it")
    _common(leaderboard)
    leaderboard.set_defaults(action=tools.leaderboard)

    lineage = commands.add_parser("lineage", help="the way from a score back to the music, with every hash")
    lineage.add_argument("id", help="the beginning of a record's or score's id, or RUN/TASK, as tiny/demo/gs_key")
    _common(lineage)
    lineage.set_defaults(action=tools.lineage)

    up = commands.add_parser("up", help="MLflow, Prefect and the deployments on 127.0.0.1, until Ctrl-C")
    up.add_argument("--mlflow-port", type=int, default=5000)
    up.add_argument("--prefect-port", type=int, default=4200)
    _common(up)
    up.set_defaults(action=tools.up)

    upload = commands.add_parser("upload", help="copy the shards of corpus and targets to an object store")
    upload.add_argument("--to", required=True, metavar="URL", help="s3://bucket/prefix; the bucket exists")
    _common(upload)
    upload.set_defaults(action=tools.upload)

    sweep = commands.add_parser("sweep", help="search the loss weights, or write a winner to params.yaml")
    sweep.add_argument("--apply", metavar="ID", help="write that sweep's winner to params.yaml (latest: the newest)")
    _common(sweep)
    sweep.set_defaults(action=tools.sweep)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help=f"parameters; default: {PARAMS_NAME} of the workdir"
    )
    parser.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="section.key=value", help="change one parameter"
    )
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="default: the repository that holds this folder")


if __name__ == "__main__":
    sys.exit(main())
