"""The commands that say something of a run or an artifact after the fact: tags and notes."""

from __future__ import annotations

import argparse
import getpass
import os

from chapkit_flows.cli.output import print_json, print_line
from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.annotations import add_note, remove_tags, set_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.query import get_artifact, get_run
from chapkit_flows.resources import open_resources


def tag_run(options: argparse.Namespace) -> int:
    """Set and remove tags of a run."""
    database = open_resources().database
    return _tag(database, get_run(database, options.id).id, options)


def tag_artifact(options: argparse.Namespace) -> int:
    """Set and remove tags of an artifact."""
    database = open_resources().database
    return _tag(database, get_artifact(database, options.id).id, options)


def note_run(options: argparse.Namespace) -> int:
    """Write a note on a run."""
    database = open_resources().database
    return _note(database, get_run(database, options.id).id, options)


def note_artifact(options: argparse.Namespace) -> int:
    """Write a note on an artifact."""
    database = open_resources().database
    return _note(database, get_artifact(database, options.id).id, options)


def _tag(database: Database, subject_id: str, options: argparse.Namespace) -> int:
    wanted = dict(_split(text) for text in options.tags)
    if not wanted and not options.remove:
        raise LineageError("There is no tag to set or remove. Write KEY=VALUE, or --remove KEY.")
    author = _author(options)
    tags = set_tags(database, subject_id, wanted, by=author)  # first, for it may refuse
    if options.remove:
        tags = remove_tags(database, subject_id, options.remove, by=author)
    if options.json:
        print_json({"id": subject_id, "tags": tags})
    else:
        print_line(f"Tags of {subject_id}: {tags_text(tags) or 'none'}")
    return 0


def _note(database: Database, subject_id: str, options: argparse.Namespace) -> int:
    note = add_note(database, subject_id, options.text, by=_author(options))
    if options.json:
        print_json(note.to_dict())
    else:
        print_line(f"Noted on {subject_id}")
    return 0


def tags_text(tags: dict[str, str]) -> str:
    """Tags as they are written on the command line."""
    return " ".join(f"{key}={value}" for key, value in tags.items())


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise LineageError(f"{text!r} is not a tag. Write KEY=VALUE, for example site=A.")
    return key, value


def _author(options: argparse.Namespace) -> str:
    if options.by is not None:
        return str(options.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that its system does not know
        return f"user {os.getuid()}"
