"""The command `chapkit-flows`: what it takes. Each command's module is imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from chapkit_flows import __version__
from chapkit_flows.cli.evaluation_options import add_comparing, add_plan
from chapkit_flows.errors import ChapkitFlowsError, DataError

MODEL_HELP = "path/to/file.py:name, package.module:name, or the name of an installed model"
CONFIG_HELP = "a saved config, such as rain-config/default; the type may be left out where one type has that name"
URI_HELP = "a path, any fsspec URL, or artifact://ID; CSV or Parquet"
KINDS = ("dataset", "training_workspace", "prediction", "prediction_workspace", "metrics", "plot", "report", "backtest")
STATUSES = ("running", "completed", "failed", "cancelled", "crashed")
RUN_FIELDS = "id flow model status config config_digest started finished tag metric.NAME tag.NAME param.NAME"
ARTIFACT_FIELDS = "id kind level status digest size created model tag metric.NAME tag.NAME metadata.NAME"
# For a Prefect that runs without a server of its own. Without internet its telemetry prints a traceback; a first
# start has to migrate a database, which takes longer than Prefect waits by default.
EMBEDDED_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when it is done; 2 when something the user can put right is wrong; 1 when a check (`doctor`, `fsck`,
        `rehearse` …) finds a fault. Any other exception is a fault of this program and keeps its traceback.
    """
    options = build_parser().parse_args(arguments)
    for name, value in EMBEDDED_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not options.verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    try:
        return _run(options, sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    try:
        _check_text(arguments)
        command: Callable[[argparse.Namespace], int] = _find_command(options.command)
        return command(options)
    except ChapkitFlowsError as error:
        return _show(error, options)
    except ValueError as error:
        # Settings are read where they are first needed: by Prefect as soon as it is imported.
        refusal: ChapkitFlowsError | None = _find_command("output:refuse_setting")(error)
        if refusal is None:
            raise
        return _show(refusal, options)


def _show(error: ChapkitFlowsError, options: argparse.Namespace) -> int:
    code: int = _find_command("output:show_error")(error, options)
    return code


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what is not UTF-8: it could neither be sent to a server nor printed."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise DataError(f"The argument {argument!a} is not UTF-8 text. Rename the file, and pass its new name.")


def _find_command(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"chapkit_flows.cli.{module}"), name)
    return function


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="chapkit-flows",
        description="Train and predict with forecasting models as Prefect flows, with lineage of every forecast.",
        epilog="Exit codes: 0 done, 1 a check found a fault or a difference, 2 wrong input or a run that failed.",
    )
    parser.add_argument("--version", action="version", version=f"chapkit-flows {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_runs(commands)
    _add_browsing(commands)
    add_comparing(_add, commands)
    _add_registry(commands)
    _add_operations(commands)
    _add_upkeep(commands)
    return parser


def _add(commands: Commands, name: str, place: str, text: str) -> argparse.ArgumentParser:
    """Add a command with the options that all have."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else, on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Prefect's own log too")
    parser.set_defaults(command=place)
    return parser


def _add_group(commands: Commands, name: str, text: str) -> Commands:
    group = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add_runs(commands: Commands) -> None:
    train = _add(commands, "train", "runs:train", "train a model")
    train.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    train.add_argument("--data", metavar="URI", required=True, help=f"training data: {URI_HELP}")
    _add_geo(train)
    _add_config(train)
    _add_horizon(train)

    predict = _add(commands, "predict", "runs:predict", "predict with a trained model")
    predict.add_argument("artifact", metavar="ARTIFACT", help="the id that train printed, or NAME@latest")
    predict.add_argument("--historic", metavar="URI", required=True, help=f"data up to the forecast: {URI_HELP}")
    predict.add_argument("--future", metavar="URI", required=True, help="covariates of the periods to predict")
    _add_geo(predict)
    _add_horizon(predict)
    predict.add_argument("--out", metavar="FILE", type=Path, help="also write the prediction there (.csv or .parquet)")
    _add_force(predict)
    predict.add_argument("--model", metavar="MODEL", help="where the model is now, if its file has moved")

    backtest = _add(commands, "backtest", "evaluations:backtest", "forecast from past origins, and score that")
    backtest.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    backtest.add_argument("--data", metavar="URI", required=True, help=f"data with the truth: {URI_HELP}")
    _add_geo(backtest)
    _add_config(backtest)
    add_plan(backtest)

    validate = _add(commands, "validate", "runs:validate", "check inputs without running the model")
    validate.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    validate.add_argument("--data", metavar="URI", help="training data, to check a training")
    _add_config(validate)
    validate.add_argument("--artifact", metavar="ID", help="a trained model, to check a prediction")
    validate.add_argument("--historic", metavar="URI", help="data up to the forecast")
    validate.add_argument("--future", metavar="URI", help="covariates of the periods to predict")
    _add_geo(validate)


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def _add_geo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--geo", metavar="URI", help="polygons as GeoJSON, whose feature ids are the locations")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="NAME", help="a saved config of the model; default: its defaults")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change one config value for this run"
    )


def _add_horizon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prediction-periods", metavar="N", type=int, help="how many periods ahead to predict")


def _add_browsing(commands: Commands) -> None:
    runs = _add_group(commands, "runs", "what has run")
    listing = _add(runs, "list", "browse:list_runs_", "list runs, newest first")
    listing.add_argument("--flow", choices=("train", "retrain", "predict"))
    listing.add_argument("--model", metavar="NAME", help="runs of this model")
    listing.add_argument("--status", choices=STATUSES)
    _add_where(listing, RUN_FIELDS)
    _add_paging(listing)
    show = _add(runs, "show", "browse:show_run", "show one run: its config, data, code, outputs")
    show.add_argument("id", metavar="ID", help="the id of a run, or of its Prefect flow run")
    settling = _add(runs, "settle", "settling:settle_runs", "record how runs ended whose process was killed")
    settling.add_argument(
        "--silent-for", metavar="SECONDS", type=_one_or_more, help="without heartbeat; default: three heartbeats"
    )
    _add_annotating(runs, "run", "the id of a run, or of its Prefect flow run")
    _add_export(runs, "run", RUN_FIELDS)

    artifacts = _add_group(commands, "artifacts", "what was read and made")
    listing = _add(artifacts, "list", "browse:list_artifacts_", "list artifacts, newest first")
    listing.add_argument("--kind", choices=KINDS)
    listing.add_argument("--model", metavar="NAME", help="artifacts of this model")
    listing.add_argument("--digest", metavar="SHA256", help="artifacts with these bytes, as sha256sum prints them")
    _add_where(listing, ARTIFACT_FIELDS)
    _add_paging(listing)
    show = _add(artifacts, "show", "browse:show_artifact", "show one artifact")
    show.add_argument("id", metavar="ID")
    download = _add(artifacts, "download", "exports:download", "write artifacts to a file or a folder")
    download.add_argument("id", metavar="ID", nargs="?")
    download.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help="a prediction is written as CSV to a .csv, a folder as archive to a .zip; "
        "with --where a folder, in which what is there already is left as it is",
    )
    _add_choice(download, ARTIFACT_FIELDS)

    _add_trash(artifacts)
    _add_annotating(artifacts, "artifact", "the id of an artifact")
    _add_export(artifacts, "artifact", ARTIFACT_FIELDS)

    lineage = _add(commands, "lineage", "lineage:show_lineage", "show what made a thing, and what was made from it")
    lineage.add_argument(
        "id", metavar="THING", help="the id of an artifact or a run, a digest, or a file or URL that a run has read"
    )
    direction = lineage.add_mutually_exclusive_group()
    direction.add_argument("--up", action="store_true", help="only what made it")
    direction.add_argument("--down", action="store_true", help="only what was made from it")
    lineage.add_argument("--depth", metavar="N", type=_one_or_more, help="how many runs far; default: all")
    lineage.add_argument("--levels", action="store_true", help="only models, predictions and what they left, by level")
    lineage.add_argument("--limit", metavar="N", type=_one_or_more, default=500, help="how many things; default: 500")
    lineage.add_argument("--before", metavar="ID", help="go on after this neighbour, as the page before printed it")


def _add_trash(artifacts: Commands) -> None:
    delete = _add(artifacts, "delete", "upkeep:delete", "put artifacts into the trash")
    delete.add_argument("ids", metavar="ID", nargs="*")
    delete.add_argument("--yes", action="store_true", help="do not ask, however many a filter chooses")
    delete.add_argument("--reason", metavar="TEXT", required=True, help="shown to whoever looks for it later")
    restore = _add(artifacts, "restore", "upkeep:restore_artifacts", "take artifacts out of the trash")
    restore.add_argument("ids", metavar="ID", nargs="*")
    for parser in (delete, restore):
        _add_choice(parser, ARTIFACT_FIELDS)
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")
    listing = _add(artifacts, "trash", "upkeep:show_trash", "list what is in the trash, the last deleted first")
    _add_paging(listing)


def _add_upkeep(commands: Commands) -> None:
    gc = _add(commands, "gc", "upkeep:gc", "remove stored bytes that nobody needs")
    gc.add_argument("--dry-run", action="store_true", help="only list what would go, and why")
    gc.add_argument("--explain", metavar="ID", help="why the bytes of an artifact stay or may go")
    gc.add_argument("--retention-days", metavar="N", type=float, default=30, help="in the trash (default: %(default)s)")
    gc.add_argument(
        "--grace-days", metavar="N", type=float, default=7, help="since the last use (default: %(default)s)"
    )

    fsck = _add(commands, "fsck", "upkeep:fsck", "check that the bytes of every artifact are there")
    fsck.add_argument("--bytes", action="store_true", help="read all bytes and compare their digests")
    fsck.add_argument(
        "--set-aside", action="store_true", help="move damaged bytes out of the way, so that they can be stored again"
    )
    fsck.add_argument("--sample", metavar="SHARE", type=_share, default=1.0, help="of the artifacts, such as 0.05")
    fsck.add_argument("--seed", metavar="N", type=int, default=0, help="of the sample (default: %(default)s)")
    fsck.add_argument("--after", metavar="ID", help="go on after this artifact")

    backup = _add(commands, "backup", "upkeep:backup", "copy database and bytes to another store; again: what is new")
    backup.add_argument("to", metavar="TO", help="a folder or any storage URL")
    restore = _add(commands, "restore", "upkeep:restore", "bring a backup back into an empty database")
    restore.add_argument("source", metavar="FROM", help="where backup wrote to")
    restore.add_argument("--backup", metavar="ID", help="default: the newest")
    _add(commands, "rebuild", "upkeep:rebuild_database", "make a lost database again from what lies in the store")
    rehearsal = _add(commands, "rehearse", "upkeep:rehearse_disaster", "lose the database of a copy, and rebuild it")
    rehearsal.add_argument("--folder", metavar="FOLDER", type=Path, help="for the copy; default: a temporary one")


def _add_registry(commands: Commands) -> None:
    models = _add_group(commands, "models", "model versions, and the aliases that say which is in use")
    listing = _add(models, "list", "models:list_models", "list model versions, newest first")
    listing.add_argument("--model", metavar="NAME", help="versions of this model")
    _add_paging(listing)
    version_help = "MODEL@NUMBER, MODEL@ALIAS, or the id of a registered model"
    show = _add(models, "show", "models:show_model", "show one version: its training, config and aliases")
    show.add_argument("version", metavar="VERSION", help=version_help)
    show.add_argument("--at", metavar="TIME", type=_moment, help="to which version an alias pointed then (UTC)")
    register = _add(models, "register", "models:register_model", "give a trained model the next number of its model")
    register.add_argument("id", metavar="ID", help="the id that train printed")
    register.add_argument("--note", metavar="TEXT", default="", help="what should be known of it")
    _add_by(register)
    promote = _add(models, "promote", "models:promote_model", "make a version the champion")
    promote.add_argument("version", metavar="VERSION", help=version_help)
    back = _add(models, "rollback", "models:roll_back_model", "give an alias back to the version that held it before")
    back.add_argument("model", metavar="MODEL", help="the name of the model")
    for parser in (promote, back):
        parser.add_argument("--alias", metavar="NAME", default="champion", help="default: %(default)s")
    alias = _add(models, "alias", "models:change_alias", "point an alias other than champion to a version")
    alias.add_argument("version", metavar="VERSION", help=f"{version_help}; with --remove the name of the model")
    alias.add_argument("alias", metavar="ALIAS", help="lower-case letters, digits, - and _")
    alias.add_argument("--remove", action="store_true", help="let the alias point to nothing")
    for parser in (promote, back, alias):
        parser.add_argument("--reason", metavar="TEXT", required=True, help="kept, and shown in the history")
        _add_by(parser)
    history = _add(models, "history", "models:show_history", "show who registered and promoted what, when and why")
    history.add_argument("model", metavar="MODEL", help="the name of the model")


def _add_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", metavar="NAME", help="who does it; default: the user of this computer")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a time such as 2026-01-31 or 2026-01-31T06:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0, up to 1")
    return share


def _add_where(parser: argparse.ArgumentParser, fields: str) -> None:
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help='only what this is true of, such as: metric.crps < 20 and (tag.site = "A" or model = "rain"); '
        'with and, or, not, ( ), = != < <= > >=, in ("a", "b"), and ~ for a part of a text; '
        f"times are UTC, such as 2026-01-31; fields: {fields}",
    )


def _add_choice(parser: argparse.ArgumentParser, fields: str) -> None:
    """Instead of ids: a filter, with a look at what would happen."""
    _add_where(parser, fields)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done, and change nothing")


def _add_export(group: Commands, what: str, fields: str) -> None:
    export = _add(group, "export", f"exports:export_{what}s", f"write the facts of {what}s to a file, one a line")
    export.add_argument("ids", metavar="ID", nargs="*")
    export.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="JSON lines to a .jsonl, a table to a .csv"
    )
    _add_force(export)
    _add_choice(export, fields)


def _add_annotating(group: Commands, what: str, id_help: str) -> None:
    article = "an" if what == "artifact" else "a"
    tag = _add(group, "tag", f"annotations:tag_{what}", f"set and remove tags of {what}s, to find them by")
    tag.usage = f"{tag.prog} [-h] [ID | --where EXPR] [KEY=VALUE ...] [--remove KEY] [--dry-run] [--by NAME]"
    tag.add_argument("words", metavar="ID KEY=VALUE", nargs="*", help=f"{id_help}; tags to set")
    _add_choice(tag, ARTIFACT_FIELDS if what == "artifact" else RUN_FIELDS)
    tag.add_argument("--remove", metavar="KEY", action="append", default=[], help="a tag to remove; may be repeated")
    note = _add(group, "note", f"annotations:note_{what}", f"write a note on {article} {what}")
    note.add_argument("id", metavar="ID", help=id_help)
    note.add_argument("text", metavar="TEXT", help="what should be known")
    for parser in (tag, note):
        parser.add_argument("--by", metavar="NAME", help="who says so; default: the user of this computer")


def _add_paging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="N", type=_one_or_more, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--before", metavar="ID", help="the last id of the page before this one")


def _one_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write 1 or more")
    return int(text)


def _add_blocks(commands: Commands) -> None:
    blocks = _add_group(commands, "blocks", "configs as YAML documents")
    plan = _add(blocks, "plan", "blocks:plan", "show what apply would change on the Prefect server, and write nothing")
    plan.add_argument(
        "--exit-code", action="store_true", help="exit with 1 if something would change or was edited on the server"
    )
    apply = _add(blocks, "apply", "blocks:apply", "register config types and save configs on the Prefect server")
    apply.add_argument("--dry-run", action="store_true", help="only show the plan")
    apply.add_argument("--yes", action="store_true", help="delete without asking what --prune names")
    apply.add_argument("--note", metavar="TEXT", help="what people should know, for the history of the configs")
    pull = _add(blocks, "pull", "pull:pull", "write what was edited on the Prefect server back to the YAML files")
    pull.add_argument("--new", action="store_true", help="make documents of saved configs that are in no file, too")
    plan.epilog = "Exit codes: 0 done; 1 with --exit-code: apply would change something, or find it edited; 2 an error."
    apply.epilog = "Exit codes: 0 done; 1 something was edited on the server, and left as it is; 2 an error."
    pull.epilog = "Exit codes: 0 done; 1 something differs that was not written; 2 an error."
    for parser in (plan, apply, pull):
        parser.add_argument("path", metavar="PATH", type=Path, help="a YAML file, or a folder of them")
    for parser in (plan, apply):
        parser.add_argument(
            "--prune", action="store_true", help="delete saved configs that are in no file, of the types in PATH only"
        )
    for parser, lost in ((apply, "the server"), (pull, "the file, too,")):
        parser.add_argument(
            "--overwrite", action="store_true", help=f"replace what was edited on {lost} since the last apply"
        )
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")


def _add_configs(commands: Commands) -> None:
    configs = _add_group(commands, "configs", "saved configs and their history")
    listing = _add(configs, "list", "configs:list_", "list the configs that were used or applied, with their version")
    listing.add_argument("--type", metavar="SLUG", help="only configs of this block type, such as rain-config")
    show = _add(configs, "show", "configs:show", "show the content of a version; secret values are masked")
    show.add_argument("what", metavar="WHAT", help="NAME, NAME@N, the id of a run, or the beginning of a digest")
    history = _add(configs, "history", "configs:history", "list all versions of a config, the newest first")
    history.add_argument("name", metavar="NAME", help=CONFIG_HELP)
    diff = _add(configs, "diff", "configs:diff_", "compare two configs; exit code 1 if they differ")
    for side in ("a", "b"):
        diff.add_argument(
            side,
            metavar=side.upper(),
            help="NAME (as it is saved now), NAME@N, the id of a run, the beginning of a digest, or FILE.yaml[#NAME]; "
            "secret values are masked on both sides, and so not compared",
        )
    diff.add_argument("--md", action="store_true", help="print a Markdown table")
    restore = _add(configs, "restore", "configs:restore", "make an older version the content of the saved config again")
    restore.add_argument("version", metavar="NAME@N", help="a version, as `configs history` lists them")
    use = _add(configs, "use", "configs:use", "give a saved config the content of another one, so that runs use that")
    use.add_argument("source", metavar="SOURCE", help="NAME, NAME@N, the id of a run, or the beginning of a digest")
    use.add_argument(
        "--as", dest="target", metavar="NAME", required=True, help="the saved config to change; made if it is not there"
    )
    for parser in (restore, use):
        parser.description = f"{parser.description} What was saved there is kept in its history, secret values stay."
        parser.add_argument("--note", metavar="TEXT", help="what people should know, for the history")
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")


def _add_operations(commands: Commands) -> None:
    _add_blocks(commands)
    _add_configs(commands)
    _add_deploy(commands)
    automations = _add_group(commands, "automations", "what the Prefect server does when something happens")
    apply = _add(automations, "apply", "automations:apply", "create or update automations on the Prefect server")
    apply.add_argument("path", metavar="PATH", type=Path, help="a YAML file, or a folder of them")

    sample = _add(commands, "sample-data", "samples:make", "make a data set that fits a model, to try it")
    sample.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    sample.add_argument("--out", metavar="FOLDER", type=Path, default=Path("sample-data"), help="default: %(default)s")
    _add_force(sample)
    sample.add_argument("--places", metavar="N", type=int, default=5, help="default: %(default)s")
    sample.add_argument("--periods", metavar="N", type=int, help="periods of training data; default: five years")
    sample.add_argument("--horizon", metavar="N", type=int, help="periods of future data; default: the config's")
    sample.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")

    doctor = _add(commands, "doctor", "doctor:examine", "check server, block types, database, store, disk and clock")
    doctor.add_argument(
        "--pool", metavar="NAME", action="append", default=[], help="must have a live worker; may be repeated"
    )
    doctor.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        default=Path("prefect.yaml"),
        help="whose models are looked at too, if it is there (default: %(default)s)",
    )


def _add_deploy(commands: Commands) -> None:
    deploy = _add(commands, "deploy", "deploy:deploy", "write a deployment of a model into prefect.yaml")
    deploy.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    deploy.add_argument(
        "--flow",
        choices=("retrain", "train", "predict"),
        default="retrain",
        help="retrain trains only what is new; predict uses the newest trained model (default: %(default)s)",
    )
    deploy.add_argument("--schedule", metavar="CRON", help='when it runs by itself, such as "0 6 * * 1"')
    deploy.add_argument("--timezone", metavar="ZONE", help="of the schedule, such as Europe/Oslo; default: UTC")
    deploy.add_argument("--data", metavar="URI", help=f"training data: {URI_HELP}")
    deploy.add_argument("--historic", metavar="URI", help="for predict: data up to the forecast")
    deploy.add_argument("--future", metavar="URI", help="for predict: covariates of the periods to predict")
    _add_geo(deploy)
    deploy.add_argument("--config", metavar="NAME", help="a saved config of the model, as name or type/name")
    deploy.add_argument("--pool", metavar="NAME", help="work pool; default: the one in the file, else forecasts")
    deploy.add_argument("--name", metavar="NAME", help="of the deployment; default: MODEL-FLOW")
    deploy.add_argument("--file", metavar="FILE", type=Path, default=Path("prefect.yaml"), help="default: %(default)s")
    deploy.add_argument("--dry-run", action="store_true", help="only show what would change")
    deploy.add_argument("--apply", action="store_true", help="deploy it too, with prefect deploy")


if __name__ == "__main__":
    sys.exit(main())
