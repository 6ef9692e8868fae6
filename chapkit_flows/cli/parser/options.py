"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import TypeAlias

MODEL_HELP = "path/to/file.py:name, package.module:name, or the name of an installed model"
CONFIG_HELP = "a saved config, such as rain-config/default; the type may be left out where one type has that name"
URI_HELP = "a path, any fsspec URL, or artifact://ID; CSV or Parquet"
RUN_FIELDS = "id flow model status config config_digest started finished tag stale metric.NAME tag.NAME param.NAME"
ARTIFACT_FIELDS = "id kind level status digest size created model tag stale metric.NAME tag.NAME metadata.NAME"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(commands: Commands, name: str, place: str, text: str) -> argparse.ArgumentParser:
    """Add a command with the options that all have."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else, on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Prefect's own log too")
    parser.set_defaults(command=place)
    return parser


def add_group(commands: Commands, name: str, text: str) -> Commands:
    """Add a command that has commands of its own."""
    group = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Whether files that are there may be replaced."""
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def add_geo(parser: argparse.ArgumentParser) -> None:
    """Where the polygons are."""
    parser.add_argument("--geo", metavar="URI", help="polygons as GeoJSON, whose feature ids are the locations")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Which config, and what is changed in it."""
    parser.add_argument("--config", metavar="NAME", help="a saved config of the model; default: its defaults")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change one config value for this run"
    )


def add_horizon(parser: argparse.ArgumentParser) -> None:
    """How far ahead to predict."""
    parser.add_argument("--prediction-periods", metavar="N", type=int, help="how many periods ahead to predict")


def add_author(parser: argparse.ArgumentParser) -> None:
    """Who does it, for the history."""
    parser.add_argument("--by", metavar="NAME", help="who does it; default: the user of this computer")


def add_where(parser: argparse.ArgumentParser, fields: str) -> None:
    """A filter over the fields named."""
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help='only what this is true of, such as: metric.crps < 20 and (tag.site = "A" or model = "rain"); '
        'with and, or, not, ( ), = != < <= > >=, in ("a", "b"), and ~ for a part of a text; '
        f"times are UTC, such as 2026-01-31; fields: {fields}",
    )


def add_choice(parser: argparse.ArgumentParser, fields: str) -> None:
    """Instead of ids: a filter, with a look at what would happen."""
    add_where(parser, fields)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done, and change nothing")


def add_paging(parser: argparse.ArgumentParser) -> None:
    """How many, and from where on."""
    parser.add_argument("--limit", metavar="N", type=one_or_more, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--before", metavar="ID", help="the last id of the page before this one")


def one_or_more(text: str) -> int:
    """Read a whole number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write 1 or more")
    return int(text)
