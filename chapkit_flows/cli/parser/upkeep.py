"""What the commands take that keep bytes and facts."""

from __future__ import annotations

import argparse
from pathlib import Path

from chapkit_flows.cli.parser.options import (
    Commands,
    add_command,
)


def add_upkeep(commands: Commands) -> None:
    """`gc`, `fsck`, `backup`, `restore`, `rebuild` and `rehearse`."""
    gc = add_command(commands, "gc", "upkeep:gc", "remove stored bytes that nobody needs")
    gc.add_argument("--dry-run", action="store_true", help="only list what would go, and why")
    gc.add_argument("--explain", metavar="ID", help="why the bytes of an artifact stay or may go")
    gc.add_argument("--retention-days", metavar="N", type=float, default=30, help="in the trash (default: %(default)s)")
    gc.add_argument(
        "--grace-days", metavar="N", type=float, default=7, help="since the last use (default: %(default)s)"
    )

    fsck = add_command(commands, "fsck", "upkeep:fsck", "check that the bytes of every artifact are there")
    fsck.add_argument("--bytes", action="store_true", help="read all bytes and compare their digests")
    fsck.add_argument(
        "--set-aside", action="store_true", help="move damaged bytes out of the way, so that they can be stored again"
    )
    fsck.add_argument("--sample", metavar="SHARE", type=_share, default=1.0, help="of the artifacts, such as 0.05")
    fsck.add_argument("--seed", metavar="N", type=int, default=0, help="of the sample (default: %(default)s)")
    fsck.add_argument("--after", metavar="ID", help="go on after this artifact")

    backup = add_command(
        commands, "backup", "upkeep:backup", "copy database and bytes to another store; again: what is new"
    )
    backup.add_argument("to", metavar="TO", help="a folder or any storage URL")
    restore = add_command(commands, "restore", "upkeep:restore", "bring a backup back into an empty database")
    restore.add_argument("source", metavar="FROM", help="where backup wrote to")
    restore.add_argument("--backup", metavar="ID", help="default: the newest")
    add_command(
        commands, "rebuild", "upkeep:rebuild_database", "make a lost database again from what lies in the store"
    )
    rehearsal = add_command(
        commands, "rehearse", "upkeep:rehearse_disaster", "lose the database of a copy, and rebuild it"
    )
    rehearsal.add_argument("--folder", metavar="FOLDER", type=Path, help="for the copy; default: a temporary one")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0, up to 1")
    return share
