"""What the commands take that look at runs and artifacts, mark them, and take them out."""

from __future__ import annotations

from pathlib import Path

from chapkit_flows.cli.parser.options import (
    ARTIFACT_FIELDS,
    RUN_FIELDS,
    Commands,
    add_choice,
    add_command,
    add_force,
    add_group,
    add_paging,
    add_where,
    one_or_more,
)

KINDS = ("dataset", "training_workspace", "prediction", "prediction_workspace", "metrics", "plot", "report", "backtest")
FLOWS = ("train", "retrain", "predict", "backtest", "sweep", "score")
STATUSES = ("running", "completed", "failed", "cancelled", "crashed")


def add_browsing(commands: Commands) -> None:
    """`runs`, `artifacts` and `lineage`."""
    _add_runs(commands)
    _add_artifacts(commands)
    _add_lineage(commands)


def _add_runs(commands: Commands) -> None:
    runs = add_group(commands, "runs", "what has run")
    listing = add_command(runs, "list", "browse:list_runs_", "list runs, newest first")
    listing.add_argument("--flow", choices=FLOWS)
    listing.add_argument("--model", metavar="NAME", help="runs of this model")
    listing.add_argument("--status", choices=STATUSES)
    add_where(listing, RUN_FIELDS)
    add_paging(listing)
    show = add_command(runs, "show", "browse:show_run", "show one run: its config, data, code, outputs")
    show.add_argument("id", metavar="ID", help="the id of a run, or of its Prefect flow run")
    settling = add_command(runs, "settle", "settling:settle_runs", "record how runs ended whose process was killed")
    settling.add_argument(
        "--silent-for", metavar="SECONDS", type=one_or_more, help="without heartbeat; default: three heartbeats"
    )
    _add_annotating(runs, "run", "the id of a run, or of its Prefect flow run")
    _add_export(runs, "run", RUN_FIELDS)


def _add_artifacts(commands: Commands) -> None:
    artifacts = add_group(commands, "artifacts", "what was read and made")
    listing = add_command(artifacts, "list", "browse:list_artifacts_", "list artifacts, newest first")
    listing.add_argument("--kind", choices=KINDS)
    listing.add_argument("--model", metavar="NAME", help="artifacts of this model")
    listing.add_argument("--digest", metavar="SHA256", help="artifacts with these bytes, as sha256sum prints them")
    add_where(listing, ARTIFACT_FIELDS)
    add_paging(listing)
    show = add_command(artifacts, "show", "browse:show_artifact", "show one artifact")
    show.add_argument("id", metavar="ID")
    download = add_command(artifacts, "download", "exports:download", "write artifacts to a file or a folder")
    download.add_argument("id", metavar="ID", nargs="?")
    download.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help="a prediction is written as CSV to a .csv, a folder as archive to a .zip; "
        "with --where a folder, in which what is there already is left as it is",
    )
    add_choice(download, ARTIFACT_FIELDS)
    _add_trash(artifacts)
    _add_annotating(artifacts, "artifact", "the id of an artifact")
    _add_export(artifacts, "artifact", ARTIFACT_FIELDS)


def _add_lineage(commands: Commands) -> None:
    lineage = add_command(
        commands, "lineage", "lineage:show_lineage", "show what made a thing, and what was made from it"
    )
    lineage.add_argument(
        "id", metavar="THING", help="the id of an artifact or a run, a digest, or a file or URL that a run has read"
    )
    direction = lineage.add_mutually_exclusive_group()
    direction.add_argument("--up", action="store_true", help="only what made it")
    direction.add_argument("--down", action="store_true", help="only what was made from it")
    lineage.add_argument("--depth", metavar="N", type=one_or_more, help="how many runs far; default: all")
    lineage.add_argument("--levels", action="store_true", help="only models, predictions and what they left, by level")
    lineage.add_argument("--limit", metavar="N", type=one_or_more, default=500, help="how many things; default: 500")
    lineage.add_argument("--before", metavar="ID", help="go on after this neighbour, as the page before printed it")


def _add_trash(artifacts: Commands) -> None:
    delete = add_command(artifacts, "delete", "upkeep:delete", "put artifacts into the trash")
    delete.add_argument("ids", metavar="ID", nargs="*")
    delete.add_argument("--yes", action="store_true", help="do not ask, however many a filter chooses")
    delete.add_argument("--reason", metavar="TEXT", required=True, help="shown to whoever looks for it later")
    restore = add_command(artifacts, "restore", "upkeep:restore_artifacts", "take artifacts out of the trash")
    restore.add_argument("ids", metavar="ID", nargs="*")
    for parser in (delete, restore):
        add_choice(parser, ARTIFACT_FIELDS)
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")
    listing = add_command(artifacts, "trash", "upkeep:show_trash", "list what is in the trash, the last deleted first")
    add_paging(listing)


def _add_export(group: Commands, what: str, fields: str) -> None:
    export = add_command(
        group, "export", f"exports:export_{what}s", f"write the facts of {what}s to a file, one a line"
    )
    export.add_argument("ids", metavar="ID", nargs="*")
    export.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="JSON lines to a .jsonl, a table to a .csv"
    )
    add_force(export)
    add_choice(export, fields)


def _add_annotating(group: Commands, what: str, id_help: str) -> None:
    article = "an" if what == "artifact" else "a"
    tag = add_command(group, "tag", f"annotations:tag_{what}", f"set and remove tags of {what}s, to find them by")
    tag.usage = f"{tag.prog} [-h] [ID | --where EXPR] [KEY=VALUE ...] [--remove KEY] [--dry-run] [--by NAME]"
    tag.add_argument("words", metavar="ID KEY=VALUE", nargs="*", help=f"{id_help}; tags to set")
    add_choice(tag, ARTIFACT_FIELDS if what == "artifact" else RUN_FIELDS)
    tag.add_argument("--remove", metavar="KEY", action="append", default=[], help="a tag to remove; may be repeated")
    note = add_command(group, "note", f"annotations:note_{what}", f"write a note on {article} {what}")
    note.add_argument("id", metavar="ID", help=id_help)
    note.add_argument("text", metavar="TEXT", help="what should be known")
    for parser in (tag, note):
        parser.add_argument("--by", metavar="NAME", help="who says so; default: the user of this computer")
