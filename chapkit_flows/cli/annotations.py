"""The commands that say something of a run or an artifact after the fact: tags and notes."""

from __future__ import annotations

import argparse
import getpass
import os

from chapkit_flows.cli.output import print_json, print_line
from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.query import get_artifact, get_run
from chapkit_flows.resources import Resources, open_resources
from chapkit_flows.upkeep.annotations import add_note, remove_tags, set_tags


def tag_run(options: argparse.Namespace) -> int:
    """Set and remove tags of a run."""
    resources = open_resources()
    return _tag(resources, get_run(resources.database, options.id).id, options)


def tag_artifact(options: argparse.Namespace) -> int:
    """Set and remove tags of an artifact."""
    resources = open_resources()
    return _tag(resources, get_artifact(resources.database, options.id).id, options)


def note_run(options: argparse.Namespace) -> int:
    """Write a note on a run."""
    resources = open_resources()
    return _note(resources, get_run(resources.database, options.id).id, options)


def note_artifact(options: argparse.Namespace) -> int:
    """Write a note on an artifact."""
    resources = open_resources()
    return _note(resources, get_artifact(resources.database, options.id).id, options)


def _tag(resources: Resources, subject_id: str, options: argparse.Namespace) -> int:
    wanted = dict(_split(text) for text in options.tags)
    if not wanted and not options.remove:
        raise LineageError("There is no tag to set or remove. Write KEY=VALUE, or --remove KEY.")
    author = author_of(options)
    tags = set_tags(resources, subject_id, wanted, by=author)  # first, for it may refuse
    if options.remove:
        tags = remove_tags(resources, subject_id, options.remove, by=author)
    if options.json:
        print_json({"id": subject_id, "tags": tags})
    else:
        print_line(f"Tags of {subject_id}: {tags_text(tags) or 'none'}")
    return 0


def _note(resources: Resources, subject_id: str, options: argparse.Namespace) -> int:
    note = add_note(resources, subject_id, options.text, by=author_of(options))
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


def author_of(options: argparse.Namespace) -> str:
    """Who says or does something: `--by`, else the user of this computer."""
    if options.by is not None:
        return str(options.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that its system does not know
        return f"user {os.getuid()}"
