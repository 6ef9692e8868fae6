"""What the commands of model versions and their aliases take."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from chapkit_flows.cli.parser.options import (
    Commands,
    add_author,
    add_command,
    add_group,
    add_paging,
)


def add_registry(commands: Commands) -> None:
    """`models`."""
    models = add_group(commands, "models", "model versions, and the aliases that say which is in use")
    listing = add_command(models, "list", "models:list_models", "list model versions, newest first")
    listing.add_argument("--model", metavar="NAME", help="versions of this model")
    add_paging(listing)
    version_help = "MODEL@NUMBER, MODEL@ALIAS, or the id of a registered model"
    show = add_command(models, "show", "models:show_model", "show one version: its training, config and aliases")
    show.add_argument("version", metavar="VERSION", help=version_help)
    show.add_argument("--at", metavar="TIME", type=_moment, help="to which version an alias pointed then (UTC)")
    register = add_command(
        models, "register", "models:register_model", "give a trained model the next number of its model"
    )
    register.add_argument("id", metavar="ID", help="the id that train printed")
    register.add_argument("--note", metavar="TEXT", default="", help="what should be known of it")
    add_author(register)
    promote = add_command(models, "promote", "promotions:promote_model", "make a version the champion")
    promote.add_argument("version", metavar="VERSION", help=version_help)
    promote.add_argument(
        "--gate", metavar="FILE", type=Path, help="rules as YAML that its backtest must pass beside the champion's"
    )
    back = add_command(
        models, "rollback", "models:roll_back_model", "give an alias back to the version that held it before"
    )
    back.add_argument("model", metavar="MODEL", help="the name of the model")
    for parser in (promote, back):
        parser.add_argument("--alias", metavar="NAME", default="champion", help="default: %(default)s")
    alias = add_command(models, "alias", "models:change_alias", "point an alias other than champion to a version")
    alias.add_argument("version", metavar="VERSION", help=f"{version_help}; with --remove the name of the model")
    alias.add_argument("alias", metavar="ALIAS", help="lower-case letters, digits, - and _")
    alias.add_argument("--remove", action="store_true", help="let the alias point to nothing")
    for parser in (promote, back, alias):
        parser.add_argument("--reason", metavar="TEXT", required=True, help="kept, and shown in the history")
        add_author(parser)
    history = add_command(
        models, "history", "models:show_history", "show who registered and promoted what, when and why"
    )
    history.add_argument("model", metavar="MODEL", help="the name of the model")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a time such as 2026-01-31 or 2026-01-31T06:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
